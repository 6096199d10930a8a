"""What may not be handed to QEMU, and why not."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.image import Inspection, Verdict, inspect_untrusted
from pyvirt.image.untrusted.verdict import CODES
from pyvirt.image.untrusted.window import Unseen, Window

MIB = 1 << 20


def judged(content: bytes, format: str | None = None) -> Verdict:
    return inspect_untrusted(io.BytesIO(content), format)


def made(path: Path, format: str, **options: str) -> bytes:
    """An image of `qemu-img`, of 4 MiB."""
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    command = ["qemu-img", "create", "-q", "-f", format, *words, str(path), "4M"]
    subprocess.run(command, check=True, timeout=60)
    return path.read_bytes()


def put(content: bytes, place: int, data: bytes) -> bytes:
    """`content` with `data` at byte `place`, which may be behind its end."""
    whole = bytearray(content.ljust(place + len(data), b"\0"))
    whole[place : place + len(data)] = data
    return bytes(whole)


# -- Small builders ------------------------------------------------------------------------------


def qcow2(
    *,
    version: int = 3,
    features: int = 0,
    autoclear: int = 0,
    backing: bytes = b"",
    extensions: bytes = b"",
) -> bytes:
    """An empty disk of 64 KiB: header, refcount table, its block, L1."""
    place = 512 if backing else 0
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", version, place, len(backing), 16, 65536, 0,
                       1, 3 << 16, 1 << 16, 1, 0, 0)  # fmt: skip
    if version > 2:
        head += struct.pack(">QQQII", features, 0, autoclear, 4, 104)
    counts = put(b"", 2 << 16, struct.pack(">4H", 1, 1, 1, 1))
    whole = put(put(counts, 0, head + extensions), 1 << 16, struct.pack(">Q", 2 << 16))
    return put(put(whole, place, backing), 4 * 65536 - 1, b"\0")


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


DESCRIPTOR = """# Disk DescriptorFile
version=1
CID=12345678
parentCID=ffffffff
createType="{type}"

# Extent description
{extents}

# The Disk Data Base
ddb.virtualHWVersion = "4"
"""


def descriptor(type: str = "monolithicSparse", extents: str = 'RW 128 SPARSE "disk.vmdk"') -> bytes:
    return DESCRIPTOR.format(type=type, extents=extents).encode()


def vmdk(
    text: bytes | None = None,
    *,
    capacity: int = 128,
    place: int = 1,
    directory: int = 26,
    version: int = 1,
) -> bytes:
    """A sparse extent with an embedded descriptor."""
    text = descriptor() if text is None else text
    head = struct.pack("<4sIIQQQQIQQQ?4sH", b"KDMV", version, 3, capacity, 128, place, 20, 512, 21,
                       directory, 128, False, b"\n \r\n", 0)  # fmt: skip
    whole = put(put(b"", 0, head), 512, text)
    whole = put(whole, 21 * 512, struct.pack("<I", 22))
    return put(put(whole, 26 * 512, struct.pack("<I", 27)), 128 * 512 - 1, b"\0")


def footed(whole: bytes, **changed: int) -> bytes:
    """A stream-optimised image: the header says that the footer has the grain directory."""
    head = put(whole, 56, struct.pack("<Q", (1 << 64) - 1))
    footer = bytearray(whole[:512])
    for name, value in changed.items():
        struct.pack_into(
            "<Q", footer, {"descriptor": 28, "capacity": 12, "directory": 56}[name], value
        )
    marker = struct.pack("<QII", 1, 0, 3).ljust(512, b"\0")
    return head + marker + bytes(footer) + bytes(512)


def partition(kind: int, first: int, sectors: int, boot: int = 0, chs: bytes = b"\0\2\0") -> bytes:
    return struct.pack("<B3sB3sII", boot, chs, kind, b"\xff\xff\xff", first, sectors)


def mbr(*entries: bytes, size: int = MIB) -> bytes:
    whole = put(bytes(size), 446, b"".join(entries))
    return put(whole, 510, b"\x55\xaa")


def gpt() -> bytes:
    return put(mbr(partition(0xEE, 1, 2047)), 512, b"EFI PART")


def iso(size: int = 65536) -> bytes:
    return put(put(bytes(size), 32768, b"\1CD001\1"), 34816, b"\xffCD001\1")


GOOD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "qcow2": ("qcow2", qcow2),
    "qcow2-v2": ("qcow2", lambda: qcow2(version=2)),
    "qcow2-dirty": ("qcow2", lambda: qcow2(features=1)),
    "vmdk": ("vmdk", vmdk),
    "vmdk-stream": ("vmdk", lambda: footed(vmdk(descriptor("streamOptimized")))),
    "zeros": ("raw", lambda: bytes(MIB)),
    "mbr": ("raw", lambda: mbr(partition(0x83, 1, 100))),
    "gpt": ("raw", gpt),
    "iso": ("raw", iso),
    "fat": ("raw", lambda: put(put(put(bytes(MIB), 16, b"\2"), 21, b"\xf8"), 510, b"\x55\xaa")),
}

FLAT = descriptor("monolithicFlat", 'RW 128 FLAT "/etc/passwd" 0')
TWO = descriptor(extents='RW 64 SPARSE "a.vmdk"\nRW 64 SPARSE "b.vmdk"')
HINT = descriptor() + b'parentFileNameHint="/etc/shadow"\n'

BAD: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "backing": ("qcow2", "backing-file", lambda: qcow2(backing=b"/etc/passwd")),
    "backing-v2": ("qcow2", "backing-file", lambda: qcow2(version=2, backing=b"x")),
    "backing-json": ("qcow2", "backing-file", lambda: qcow2(backing=b'json:{"driver":"nbd"}')),
    "backing-without-name": ("qcow2", "backing-file", lambda: put(qcow2(), 8, b"\0" * 7 + b"\x99")),
    "backing-length-only": ("qcow2", "backing-file", lambda: put(qcow2(), 19, b"\4")),
    "data-file": (
        "qcow2",
        "data-file",
        lambda: qcow2(features=4, extensions=extension(0x44415441, b"/etc/passwd")),
    ),
    "data-file-without-name": ("qcow2", "data-file", lambda: qcow2(features=4)),
    "data-file-name-only": (
        "qcow2",
        "data-file",
        lambda: qcow2(extensions=extension(0x44415441, b"/etc/passwd")),
    ),
    "data-file-raw-only": ("qcow2", "data-file", lambda: qcow2(autoclear=2)),
    "corrupt": ("qcow2", "corrupt", lambda: qcow2(features=2)),
    "version-4": ("qcow2", "broken", lambda: qcow2(version=4)),
    "refcount-order": ("qcow2", "broken", lambda: put(qcow2(), 96, b"\0\0\0\7")),
    "cut": ("qcow2", "broken", lambda: qcow2()[:90]),
    "extension-too-long": (
        "qcow2",
        "broken",
        lambda: qcow2(extensions=struct.pack(">II", 1, 0xFFFFFFF0)),
    ),
    "l1-of-4-gib": ("qcow2", "broken", lambda: put(qcow2(), 36, b"\x20\0\0\0")),
    "size-of-2^63": ("qcow2", "broken", lambda: put(qcow2(), 24, b"\x80" + bytes(7))),
    "flat": ("vmdk", "extent", lambda: vmdk(FLAT)),
    "flat-type": ("vmdk", "subformat", lambda: vmdk(FLAT)),
    "path": ("vmdk", "extent", lambda: vmdk(descriptor(extents='RW 128 SPARSE "/etc/passwd"'))),
    "relative-path": ("vmdk", "extent", lambda: vmdk(descriptor(extents='RW 1 SPARSE "../x"'))),
    "protocol": ("vmdk", "extent", lambda: vmdk(descriptor(extents='RW 1 SPARSE "nbd:x"'))),
    "zero-extent": ("vmdk", "extent", lambda: vmdk(descriptor(extents="RW 128 ZERO"))),
    "no-extent": ("vmdk", "extent", lambda: vmdk(descriptor(extents=""))),
    "two-extents": ("vmdk", "extent", lambda: vmdk(TWO)),
    "split": ("vmdk", "subformat", lambda: vmdk(descriptor("twoGbMaxExtentSparse"))),
    "no-type": ("vmdk", "subformat", lambda: vmdk(b'# Disk DescriptorFile\nRW 1 SPARSE "a"\n')),
    "two-types": (
        "vmdk",
        "descriptor",
        lambda: vmdk(descriptor() + b'createType="monolithicFlat"\n'),
    ),
    "parent": ("vmdk", "backing-file", lambda: vmdk(HINT)),
    "parent-behind-the-end": ("vmdk", "backing-file", lambda: vmdk(descriptor() + b"\0" + HINT)),
    "descriptor-alone": ("vmdk", "extent", lambda: FLAT),
    "descriptor-by-version": ("vmdk", "extent", lambda: FLAT.removeprefix(b"# Disk Des")),
    "followed-descriptor": ("vmdk", "extent", lambda: vmdk(FLAT, capacity=0)),
    "strange-line": ("vmdk", "descriptor", lambda: vmdk(descriptor() + b"include /etc/passwd\n")),
    "no-ascii": ("vmdk", "descriptor", lambda: vmdk(descriptor() + b"# \xff\n")),
    "moved-descriptor": ("vmdk", "descriptor", lambda: vmdk(place=2)),
    "hidden-text": ("vmdk", "descriptor", lambda: vmdk(descriptor() + b"\0\0RW 1 FLAT x")),
    "vmdk-version": ("vmdk", "subformat", lambda: vmdk(version=9)),
    "footer-missing": ("vmdk", "footer", lambda: vmdk(directory=(1 << 64) - 1)),
    "footer-descriptor": ("vmdk", "footer", lambda: footed(vmdk(), descriptor=9)),
    "footer-capacity": ("vmdk", "footer", lambda: footed(vmdk(), capacity=1)),
    "footer-again": ("vmdk", "footer", lambda: footed(vmdk(), directory=(1 << 64) - 1)),
    "footer-no-end": ("vmdk", "footer", lambda: footed(vmdk())[:-1] + b"\1"),
    "esx": ("vmdk", "subformat", lambda: put(bytes(MIB), 0, b"COWD\1\0\0\0")),
    "qed": ("qed", "rare-format", lambda: put(bytes(MIB), 0, b"QED\0")),
    "qcow": ("qcow", "rare-format", lambda: put(bytes(MIB), 0, b"QFI\xfb\0\0\0\1")),
    "bochs": ("bochs", "rare-format", lambda: put(bytes(MIB), 0, b"Bochs Virtual HD Image")),
    "luks-2": ("luks", "unknown-feature", lambda: put(bytes(MIB), 0, b"LUKS\xba\xbe\0\2")),
    "no-qcow2": ("qcow2", "wrong-format", lambda: bytes(MIB)),
    "no-vmdk": ("vmdk", "wrong-format", lambda: bytes(MIB)),
    "qcow2-as-vmdk": ("vmdk", "wrong-format", qcow2),
    "raw-qcow2": ("raw", "two-formats", qcow2),
    "raw-cut-qcow2": ("raw", "two-formats", lambda: put(bytes(MIB), 0, b"QFI\xfb\0\0\0\3")),
    "raw-vmdk": ("raw", "two-formats", vmdk),
    "raw-descriptor": ("raw", "two-formats", lambda: FLAT),
    "raw-qed": ("raw", "two-formats", lambda: put(bytes(MIB), 0, b"QED\0")),
    "raw-luks": ("raw", "two-formats", lambda: put(bytes(MIB), 0, b"LUKS\xba\xbe\0\1")),
    "raw-vdi": ("raw", "two-formats", lambda: put(bytes(MIB), 64, b"\x7f\x10\xda\xbe")),
    "raw-vhd": ("raw", "two-formats", lambda: put(bytes(MIB), MIB - 512, b"conectix")),
    "raw-vhd-511": ("raw", "two-formats", lambda: put(bytes(MIB), MIB - 511, b"conectix")),
    "raw-dmg": ("raw", "two-formats", lambda: put(bytes(MIB), MIB - 512, b"koly")),
    "iso-qcow2": ("raw", "two-formats", lambda: put(iso(), 0, qcow2()[:4096])),
    "qcow2-iso": ("qcow2", "two-formats", lambda: put(qcow2(), 32769, b"CD001")),
    "qcow2-udf": ("qcow2", "two-formats", lambda: put(qcow2(), 34817, b"NSR02")),
    "qcow2-vdi": ("qcow2", "two-formats", lambda: put(qcow2(version=2), 64, b"\x7f\x10\xda\xbe")),
    "qcow2-vhd": ("qcow2", "two-formats", lambda: qcow2() + put(bytes(512), 0, b"conectix")),
    "qcow2-mbr": ("qcow2", "two-formats", lambda: put(qcow2(), 510, b"\x55\xaa")),
    "gpt-vmdk": ("vmdk", "two-formats", lambda: put(vmdk(), 446, gpt()[446:512])),
    "vmdk-gpt-4096": ("vmdk", "two-formats", lambda: put(vmdk(), 4096, b"EFI PART")),
    "raw-gpt-vmdk": ("raw", "two-formats", lambda: put(gpt(), 0, vmdk()[:100])),
    "boot-flag": ("raw", "boot-record", lambda: mbr(partition(0x83, 1, 100, boot=7))),
    "no-partition": ("raw", "boot-record", mbr),
    "hybrid": (
        "raw",
        "boot-record",
        lambda: put(gpt(), 462, partition(0x83, 100, 100)),
    ),
    "protective-start": ("raw", "boot-record", lambda: mbr(partition(0xEE, 2, 2046))),
    "protective-chs": (
        "raw",
        "boot-record",
        lambda: mbr(partition(0xEE, 1, 2047, chs=b"\1\1\1")),
    ),
    "no-gpt": ("raw", "boot-record", lambda: mbr(partition(0xEE, 1, 2047))),
    "hybrid-iso": ("raw", "hybrid-iso", lambda: put(iso(), 446, mbr(partition(1, 0, 9))[446:512])),
}
BAD |= {
    f"feature-{bit}": ("qcow2", "unknown-feature", lambda bit=bit: qcow2(features=1 << bit))  # type: ignore[misc]
    for bit in range(5, 64)
}


@pytest.mark.parametrize("name", GOOD)
def test_what_tools_make_is_safe(name: str) -> None:
    format, make = GOOD[name]
    assert str(judged(make(), format)) == f"safe as {format}"
    assert judged(make()).format == format


@pytest.mark.parametrize("name", BAD)
def test_what_is_bad_is_told(name: str) -> None:
    format, code, make = BAD[name]
    verdict = judged(make(), format)
    assert not verdict.safe
    assert code in verdict.codes, str(verdict)
    assert verdict.codes <= set(CODES)
    assert all(one.offset is None or one.offset >= 0 for one in verdict.reasons)
    as_it_says = judged(make())
    assert not as_it_says.safe or as_it_says.format != format


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("raw", {}),
        ("qcow2", {}),
        ("qcow2", {"compat": "0.10"}),
        ("qcow2", {"extended_l2": "on"}),
        ("qcow2", {"compression_type": "zstd"}),
        ("qcow2", {"cluster_size": "512"}),
        ("qcow2", {"cluster_size": "2M"}),
        ("qcow2", {"lazy_refcounts": "on"}),
        ("vmdk", {}),
        ("vmdk", {"subformat": "streamOptimized"}),
        ("vdi", {}),
        ("vdi", {"static": "on"}),
        ("vpc", {}),
        ("vpc", {"subformat": "fixed", "force_size": "on"}),
        ("vhdx", {}),
        ("vhdx", {"subformat": "fixed"}),
    ],
)
def test_images_of_qemu_are_safe(tmp_path: Path, format: str, options: dict[str, str]) -> None:
    content = made(tmp_path / "disk", format, **options)
    for verdict in (
        inspect_untrusted(tmp_path / "disk", format),
        inspect_untrusted(tmp_path / "disk"),
        judged(content, format),
    ):
        assert str(verdict) == f"safe as {format}"
        assert verdict.size == len(content)


@pytest.mark.parametrize("format", ["qed", "qcow", "parallels"])
def test_rare_formats_are_refused_even_when_qemu_made_them(tmp_path: Path, format: str) -> None:
    verdict = judged(made(tmp_path / "disk", format), format)
    assert verdict.codes == {"rare-format"}
    assert verdict.without("rare-format").safe


@pytest.mark.parametrize(
    "subformat", ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"]
)
def test_vmdks_of_several_files_are_refused(tmp_path: Path, subformat: str) -> None:
    verdict = judged(made(tmp_path / "disk.vmdk", "vmdk", subformat=subformat), "vmdk")
    assert {"extent", "subformat"} <= verdict.codes


def test_a_parent_of_a_vmdk_is_told(tmp_path: Path) -> None:
    made(tmp_path / "base.vmdk", "vmdk")
    content = made(tmp_path / "top.vmdk", "vmdk", backing_file="base.vmdk", backing_fmt="vmdk")
    verdict = judged(content, "vmdk")
    assert "backing-file" in verdict.codes


def test_a_reason_has_code_place_and_sentence() -> None:
    verdict = judged(qcow2(backing=b"/etc/\x1bpasswd"), "qcow2")
    reason = verdict.reasons[0]
    assert (reason.code, reason.offset) == ("backing-file", 8)
    assert reason.sentence == "it lies on the image '/etc/\\\\x1bpasswd'"
    assert str(verdict).startswith("not safe as qcow2: backing-file: it lies on the image '/etc/")
    assert "\x1b" not in str(verdict)


def test_a_caller_may_know_better() -> None:
    _, _, make = BAD["hybrid-iso"]
    assert judged(make(), "raw").without("hybrid-iso").safe
    with pytest.raises(ValueError, match="is no code of a reason"):
        judged(make(), "raw").without("hybrid")


def test_a_verdict_is_not_taken_for_a_truth() -> None:
    with pytest.raises(TypeError):
        bool(judged(bytes(512)))


def test_a_format_that_qemu_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="'iso' is no format"):
        judged(bytes(512), "iso")


# -- Streams -------------------------------------------------------------------------------------


def test_a_pipe_is_judged_in_bounded_memory() -> None:
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb") as pipe:
            pipe.write(qcow2(features=1 << 40))
            for _ in range(96):
                pipe.write(bytes(MIB))

    thread = threading.Thread(target=write)
    thread.start()
    tracemalloc.start()
    try:
        verdict = inspect_untrusted(reading, "qcow2")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        thread.join()
        os.close(reading)
    assert verdict.codes == {"unknown-feature"}
    assert verdict.size == 96 * MIB + len(qcow2())
    assert peak < 16 * MIB


def test_what_a_stream_did_not_keep_is_no_consent() -> None:
    text = descriptor() + b"#" * 100
    content = put(vmdk(text), 36, struct.pack("<Q", 2048))
    hidden = put(content, 21 * 512, b"\0" * 512)
    assert judged(hidden, "vmdk").size == len(hidden)
    far = put(qcow2(), 104, b"")
    far = put(far, 8, struct.pack(">Q", 6 * MIB)).ljust(12 * MIB, b"\0")
    far = put(far, 16, b"\0\0\0\4")
    assert "not-seen" in judged(far, "qcow2").codes


@pytest.mark.parametrize("name", [*GOOD, "backing", "flat", "footer-again", "raw-vhd", "gpt-vmdk"])
def test_the_sizes_of_chunks_make_no_difference(name: str) -> None:
    if name in GOOD:
        format, make = GOOD[name]
    else:
        format, _, make = BAD[name]
    content = make()
    for size in (511, 4096, 70_001):
        inspection = Inspection(format)
        for at in range(0, len(content), size):
            inspection.feed(content[at : at + size])
        assert inspection.verdict() == judged(content, format)


@given(st.binary(max_size=200), st.integers(1, 40), st.integers(1, 40), st.integers(1, 50))
def test_a_window_gives_what_it_kept_or_says_so(
    content: bytes, head: int, tail: int, chunk: int
) -> None:
    window = Window(head, tail)
    for at in range(0, len(content), chunk):
        window.feed(content[at : at + chunk])
    assert window.size == len(content)
    for offset in range(0, len(content) + 3):
        for size in (0, 1, 7, 300):
            wanted = content[offset : offset + size]
            try:
                assert window.pread(size, offset) == wanted
            except Unseen:
                end = offset + len(wanted)
                assert end > head
                assert offset < len(content) - tail


# -- OpenStack's inspector -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def openstack() -> Callable[[bytes], str | None]:
    """The format that OpenStack's inspector accepts an image as, or None."""
    inspectors = pytest.importorskip(
        "oslo_utils.imageutils.format_inspector", reason="oslo.utils is not installed"
    )

    def accepted(content: bytes) -> str | None:
        wrapper = inspectors.InspectWrapper(io.BytesIO(content))
        while wrapper.read(65536):
            pass
        wrapper.close()
        try:
            wrapper.format.safety_check()
        except (inspectors.ImageFormatError, inspectors.SafetyCheckFailed):
            return None
        name = str(wrapper.format)
        return {"gpt": "raw", "iso": "raw", "vhd": "vpc"}.get(name, name)

    return accepted


def test_openstack_accepts_whatever_is_called_safe(
    openstack: Callable[[bytes], str | None],
) -> None:
    safe = 0
    for name in [*GOOD, *BAD]:
        content = (GOOD[name] if name in GOOD else BAD[name])[-1]()
        verdict = judged(content)
        if verdict.safe:
            safe += 1
            assert openstack(content) == verdict.format, name
    assert safe >= len(GOOD)


def test_openstack_accepts_much_that_is_bad(openstack: Callable[[bytes], str | None]) -> None:
    accepted = [name for name, (format, _, make) in BAD.items() if openstack(make()) == format]
    known = {"parent", "data-file-name-only", "raw-vhd", "hidden-text", "two-extents"}
    assert known <= set(accepted)


# -- Damage --------------------------------------------------------------------------------------


def seeds() -> Iterator[tuple[str, bytes]]:
    for format, make in GOOD.values():
        yield format, make()[:131072]
    for format, _, make in [BAD[name] for name in ("backing", "data-file", "two-extents", "esx")]:
        yield format, make()[:131072]


SEEDS = [*seeds()]


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 1200), st.binary(min_size=1, max_size=9)), max_size=6),
    st.none() | st.integers(0, 2000),
)
def test_damage_gives_a_verdict_and_nothing_else(
    seed: tuple[str, bytes], changes: list[tuple[int, bytes]], cut: int | None
) -> None:
    format, content = seed
    for place, data in changes:
        content = put(content, place, data)
    for asked in (format, None):
        verdict = judged(content[:cut], asked)
        assert verdict.codes <= set(CODES)


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 120) | st.integers(440, 512) | st.integers(512, 900),
        st.binary(min_size=1, max_size=4),
    ),
    max_size=4,
)


@given(seed=st.sampled_from(SEEDS), changes=CHANGES)
def test_openstack_accepts_whatever_damage_is_called_safe(
    openstack: Callable[[bytes], str | None],
    seed: tuple[str, bytes],
    changes: list[tuple[int, bytes]],
) -> None:
    content = seed[1]
    for place, data in changes:
        content = put(content, place, data)
    verdict = judged(content)
    if verdict.safe:
        assert openstack(content) == verdict.format


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Images of formats that take more than a header to make."""
    folder = tmp_path_factory.mktemp("others")
    return {format: made(folder / format, format) for format in ("vdi", "vpc", "vhdx", "qed")}


#: Where the tables of those are; of VHDX headers, region tables, and metadata.
TABLES = st.sampled_from([0, 512, 65536, 131072, 196608, 262144, 2 * MIB, 2 * MIB + 65536])
NUMBERS = st.sampled_from([b"\xff" * 8, bytes(8), b"\xff" * 4]) | st.binary(min_size=1, max_size=8)


@given(
    format=st.sampled_from(["vdi", "vpc", "vhdx", "qed"]),
    changes=st.lists(st.tuples(TABLES, st.integers(0, 400), NUMBERS), max_size=5),
    cut=st.none() | st.integers(0, 300_000),
)
def test_damage_of_tables_gives_a_verdict_and_nothing_else(
    others: dict[str, bytes],
    format: str,
    changes: list[tuple[int, int, bytes]],
    cut: int | None,
) -> None:
    content = bytearray(others[format])
    for table, place, data in changes:
        if table + place + len(data) <= len(content):
            content[table + place : table + place + len(data)] = data
    assert judged(bytes(content[:cut]), format).codes <= set(CODES)


def test_every_cut_of_a_header_gives_a_verdict() -> None:
    for format, content in SEEDS:
        for cut in [*range(0, 130), *range(130, 1100, 31)]:
            assert judged(content[:cut], format).size == min(cut, len(content))
