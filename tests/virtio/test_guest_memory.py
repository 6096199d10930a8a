"""Guest memory over bytes, files and dumps."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import AddressError, ClosedError, ImageError, SpecError
from pyvirt.virtio import memory
from pyvirt.virtio.memory import GuestMemory, Region

LOW, HIGH = bytes(range(256)), bytes(reversed(range(256)))


def holed() -> GuestMemory:
    """Two adjacent regions, a hole, and one above 4 GiB."""
    return GuestMemory({1 << 32: HIGH, 0: LOW, 256: HIGH})


def test_reads_go_across_regions() -> None:
    assert holed().read(254, 4) == bytes([254, 255, 255, 254])
    assert holed().read(1 << 32, 2) == bytes([255, 254])
    assert holed().read(0, 0) == b""
    assert holed().size == 3 * 256


def test_typed_reads_are_little_endian() -> None:
    m = holed()
    assert (m.u8(5), m.u16(1), m.u32(1)) == (5, 0x0201, 0x04030201)
    assert m.u64(1) == 0x0807060504030201


def test_readinto_fills_what_is_lent() -> None:
    lent = bytearray(6)
    holed().readinto(253, memoryview(lent)[1:5])
    assert lent == bytes([0, 253, 254, 255, 255, 0])


@pytest.mark.parametrize(
    ("address", "size", "hole", "end"),
    [
        pytest.param(510, 4, 512, 1 << 32, id="into-the-hole"),
        pytest.param(600, 1, 600, 1 << 32, id="inside-the-hole"),
        pytest.param((1 << 32) + 250, 20, (1 << 32) + 256, None, id="past-the-end"),
        pytest.param((1 << 64) - 1, 16, (1 << 64) - 1, None, id="at-the-end-of-addresses"),
    ],
)
def test_what_is_no_memory_names_the_hole(
    address: int, size: int, hole: int, end: int | None
) -> None:
    for read in (
        lambda: holed().read(address, size),
        lambda: holed().readinto(address, bytearray(size)),
    ):
        with pytest.raises(AddressError) as caught:
            read()
        error = caught.value
        assert (error.address, error.size, error.hole, error.end) == (address, size, hole, end)


def test_a_hole_is_said_in_one_sentence() -> None:
    with pytest.raises(AddressError) as caught:
        holed().u32(0x1FE)
    assert str(caught.value) == (
        "4 bytes at guest address 0x1fe are not all memory: "
        "there is none from 0x200 up to 0x100000000"
    )


@pytest.mark.parametrize("address", [-1, 1 << 64])
def test_addresses_have_64_bits(address: int) -> None:
    with pytest.raises(SpecError) as caught:
        holed().read(address, 1)
    assert (caught.value.field, caught.value.value) == ("address", address)


def test_regions_must_not_overlap() -> None:
    with pytest.raises(SpecError) as caught:
        GuestMemory({0: LOW, 255: HIGH})
    assert caught.value.field == "regions"


def test_search_finds_matches_across_regions_and_not_across_holes() -> None:
    m = GuestMemory({0: b"xxabab", 6: b"abxx", 100: b"b", 101: b"ab"})
    assert list(m.search(b"abab")) == [2, 4]
    assert list(m.search(b"ab", 3, 8)) == [4, 6]
    assert list(m.search(b"xa")) == [1]
    assert list(m.search(b"bab")) == [3, 5, 100]


@given(data=st.binary(min_size=1, max_size=400), cuts=st.sets(st.integers(1, 399)),
       chunk=st.integers(1, 64), needle=st.binary(min_size=1, max_size=4))  # fmt: skip
def test_search_finds_every_match_whatever_the_regions(
    data: bytes, cuts: set[int], chunk: int, needle: bytes
) -> None:
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    parts = {a: data[a:b] for a, b in pairwise(places)}
    before, memory.CHUNK = memory.CHUNK, chunk
    try:
        found = list(GuestMemory(parts).search(needle))
    finally:
        memory.CHUNK = before
    assert found == [at for at in range(len(data)) if data.startswith(needle, at)]


def test_memory_that_was_let_go_of_says_so(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(LOW)
    with GuestMemory.from_file(tmp_path / "m", at=16) as m:
        assert m.read(16, 3) == b"\0\1\2"
        assert repr(m) == "<GuestMemory 0x10-0x110>"
    with pytest.raises(ClosedError) as caught:
        m.read(16, 3)
    assert str(caught.value) == "guest memory is closed: it was let go of"
    m.close()


def test_large_reads_use_the_file_and_small_ones_the_buffer(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"f" * 10000)
    with (tmp_path / "m").open("rb") as file:
        m = GuestMemory.of([Region(0, 10000, b"b" * 10000, file.fileno())])
    assert m.read(0, 10) == b"b" * 10
    assert m.read(0, 5000) == b"f" * 5000


def test_a_file_that_shrinks_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(LOW)
    m = GuestMemory.from_file(tmp_path / "m")
    (tmp_path / "m").write_bytes(b"")
    with pytest.raises(OSError, match="could not be read from its file"):
        m.read(0, 10)


# -- Dumps --------------------------------------------------------------------------------------


def elf(*segments: tuple[int, bytes], wide: bool = True, xnum: bool = False) -> bytes:
    """An ELF core with a note and these pieces of memory."""
    head, entry, table = (64, 56, 64) if wide else (52, 32, 40)
    count = len(segments) + 1
    start = head + entry * count + (table if xnum else 0)
    number = 0xFFFF if xnum else count
    sections = head + entry * count if xnum else 0
    form, rest = ("<HHIQQQIHHHHHH", 16) if wide else ("<HHIIIIIHHHHHH", 16)
    out = (b"\x7fELF" + bytes([1 + wide, 1, 1])).ljust(rest, b"\0")
    out += struct.pack(form, 4, 62, 1, 0, head, sections, 0, head, entry, number, table, xnum, 0)
    out += _segment(wide, 4, start, 0, 8)
    at = start + 8
    for guest, data in segments:
        out += _segment(wide, 1, at, guest, len(data))
        at += len(data)
    if xnum:
        info = 44 if wide else 28
        out += struct.pack(f"<{info}xI", count).ljust(table, b"\0")
    return out + b"note1234" + b"".join(data for _, data in segments)


def _segment(wide: bool, kind: int, offset: int, guest: int, size: int) -> bytes:
    if wide:
        return struct.pack("<IIQQQQQQ", kind, 0, offset, 0, guest, size, size, 0)
    return struct.pack("<IIIIIIII", kind, offset, 0, guest, size, size, 0, 0)


@pytest.mark.parametrize("wide", [True, False], ids=["elf64", "elf32"])
@pytest.mark.parametrize("xnum", [True, False], ids=["many-segments", "few-segments"])
def test_a_dump_has_its_segments(tmp_path: Path, wide: bool, xnum: bool) -> None:
    (tmp_path / "d").write_bytes(elf((0x1000, LOW), (0x2000, HIGH), wide=wide, xnum=xnum))
    with GuestMemory.from_dump(tmp_path / "d") as m:
        assert [(r.guest, r.size) for r in m.regions] == [(0x1000, 256), (0x2000, 256)]
        assert m.read(0x1000, 256) == LOW
        assert m.read(0x2010, 16) == HIGH[16:32]


def test_pages_that_are_mapped_twice_count_once(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(elf((0, LOW), (128, LOW[128:]), (128, LOW[128:] + HIGH)))
    with GuestMemory.from_dump(tmp_path / "d") as m:
        assert m.read(0, 512) == LOW + HIGH


@given(cut=st.integers(0, 800), place=st.integers(0, 300), byte=st.integers(0, 255))
def test_a_damaged_dump_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, cut: int, place: int, byte: int
) -> None:
    data = bytearray(elf((0x1000, LOW), (0x2000, HIGH)))
    data[min(place, len(data) - 1)] = byte
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(data[:cut])
    try:
        with GuestMemory.from_dump(path) as m:
            for region in m.regions:
                m.read(region.guest, region.size)
    except (ImageError, SpecError):
        pass


def test_no_dump_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(b"KDUMP   " + bytes(200))
    with pytest.raises(ImageError) as caught:
        GuestMemory.from_dump(tmp_path / "d")
    assert caught.value.reason == "is no little-endian ELF dump of guest memory"
