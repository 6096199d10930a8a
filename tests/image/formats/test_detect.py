"""What a file may be, by its content: all that it may be, best first, with reasons."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import imagebuilders as build

from pyvirt.image.detection import HEAD, detect
from pyvirt.image.source import BytesSource, FileSource

NOISE = random.Random(5).randbytes(200_000)


class Counted(BytesSource):
    """Counts what is read of it."""

    __slots__ = ("reads",)

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.reads: list[tuple[int, int]] = []

    def pread(self, size: int, offset: int, /) -> bytes:
        self.reads.append((size, offset))
        return super().pread(size, offset)


def formats(content: bytes) -> list[str]:
    return [match.format for match in detect(BytesSource(content))]


def test_noise_is_raw_only() -> None:
    (match,) = detect(BytesSource(NOISE))
    assert (match.format, match.confidence) == ("raw", 1)
    assert match.reason == "every file is a raw image of itself"


def test_a_raw_image_that_looks_like_another_is_told_as_both() -> None:
    assert formats(b"QFI\xfb\0\0\0\3" + NOISE) == ["qcow2", "raw"]
    assert formats(b"KDMV" + NOISE) == ["vmdk", "raw"]
    assert formats(b"QFI\xfb\0\0\0\1" + NOISE) == ["qcow", "raw"]


def test_everything_that_a_polyglot_may_be_is_listed() -> None:
    head = b"KDMV".ljust(32768, b"\0") + b"\1CD001\1".ljust(2048, b"\0")
    tail = build.dmg([("raw", bytes(512))])[-512:]
    found = detect(BytesSource(head + NOISE + tail))
    assert [match.format for match in found] == ["vmdk", "dmg", "iso9660", "raw"]
    assert [match.reason for match in found] == [
        "begins with 'KDMV'",
        "ends in a trailer: 'koly' of version 4",
        "has a volume descriptor in sector 16: 'CD001'",
        "every file is a raw image of itself",
    ]


def test_a_footer_makes_a_fixed_vhd_of_what_a_guest_wrote_into_it() -> None:
    footer = build.vhd_differencing({}, 1, "x")[-512:]
    found = detect(BytesSource(b"QFI\xfb\0\0\0\3" + NOISE + footer))
    assert [match.format for match in found] == ["qcow2", "vpc", "raw"]
    broken = footer[:100] + b"\1" + footer[101:]
    assert detect(BytesSource(NOISE + broken))[0].confidence < found[1].confidence


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (b"# Disk DescriptorFile\nversion=1\nCID=1\ncreateType=x\n", True),
        (b"\n  \nversion=3\n", True),
        (b"#x\r\nversion=2\r\n", True),
        (b"version=4\n", False),
        (b"Version=1\n", False),
        (b"x\nversion=1\n", False),
    ],
)
def test_descriptors_of_vmdk(text: bytes, known: bool) -> None:
    assert ("vmdk" in formats(text)) == known


def test_at_most_two_reads_whatever_the_size() -> None:
    source = Counted(NOISE)
    detect(source)
    assert source.reads == [(HEAD, 0), (512, len(NOISE) - 512)]
    source = Counted(b"")
    assert [match.format for match in detect(source)] == ["raw"]
    assert source.reads == [(HEAD, 0)]


def test_the_name_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(os.urandom(4096))
    with FileSource(path) as source:
        assert [match.format for match in detect(source)] == ["raw"]


@given(content=st.binary(max_size=2000))
def test_anything_is_at_least_raw(content: bytes) -> None:
    found = detect(BytesSource(content))
    assert found[-1].format == "raw"
    assert [one.confidence for one in found] == sorted(
        (one.confidence for one in found), reverse=True
    )
