"""What the usual tools compress is decompressed; what is damaged is refused."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from pyvirt.errors import ProtocolError
from pyvirt.guest.unpack import unpack

TEXT = b"".join(b"line %d of something to compress\n" % number for number in range(50_000))

TOOLS = {
    "gzip": ["gzip", "-c"],
    "bzip2": ["bzip2", "-c"],
    "xz": ["xz", "-c", "-1"],
    "xz-crc32": ["xz", "-c", "-1", "--check=crc32"],
    "lzma": ["xz", "-c", "-1", "--format=lzma"],
    "zstd": ["zstd", "-c", "-q"],
    "lz4": ["lz4", "-c", "-l", "-q"],
}


def pack(tool: str, data: bytes = TEXT) -> bytes:
    if shutil.which(TOOLS[tool][0]) is None:
        pytest.skip(f"{TOOLS[tool][0]} is not installed")
    return subprocess.run(TOOLS[tool], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("tool", TOOLS)
def test_it_is_unpacked(tool: str) -> None:
    assert unpack(pack(tool)) == TEXT


@pytest.mark.parametrize("tool", TOOLS)
def test_the_size_that_follows_in_a_kernel_is_ignored(tool: str) -> None:
    assert unpack(pack(tool) + len(TEXT).to_bytes(4, "little")) == TEXT


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_cut_stream_is_refused(tool: str, part: float) -> None:
    data = pack(tool)
    with pytest.raises(ProtocolError) as caught:
        unpack(data[: int(len(data) * part)], "kernel")
    assert caught.value.peer == "kernel"


def test_what_is_not_compressed_is_left_alone() -> None:
    assert unpack(b"plain") == b"plain"
