"""Blocks that would unpack to gigabytes give their block only, in little memory."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from support import imagebuilders as build

from pyvirt.errors import PyvirtError
from pyvirt.image import BytesSource, Image

CLUSTER = 1 << 16
#: What each bomb unpacks to; all of it is one byte again and again.
BOMB = 96 << 20


def packed(stream: bytes, compression: int) -> bytes:
    """A qcow2 image of one cluster, which `stream` is."""
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16, CLUSTER, 0, 1, 3 * CLUSTER,
                       CLUSTER, 1, 0, 0)  # fmt: skip
    incompatible = 8 if compression else 0
    head += struct.pack(">QQQIIB", incompatible, 0, 0, 4, 112, compression)
    sectors = -(-len(stream) // 512) - 1
    entry = 1 << 62 | sectors << 54 | 5 * CLUSTER
    parts = [head, struct.pack(">Q", 2 * CLUSTER), b"\0\1" * 8,
             struct.pack(">Q", 1 << 63 | 4 * CLUSTER), struct.pack(">Q", entry)]  # fmt: skip
    return b"".join(part.ljust(CLUSTER, b"\0") for part in parts) + stream


def deflate(size: int = BOMB) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(b"\7" * size) + packer.flush()


def zstd(size: int = BOMB) -> bytes:
    tool = shutil.which("zstd")
    if tool is None:
        pytest.skip("needs zstd")
    return subprocess.run([tool, "-19", "-c"], input=b"\7" * size, capture_output=True,
                          check=True).stdout  # fmt: skip


#: Run with so little address space that a bomb which is unpacked is a MemoryError.
LOOK = """
import resource, sys
from pyvirt.image import Image
with Image(sys.argv[1]) as image:
    image.read(0, 1)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
    try:
        data = image.read(0, 65536)
    except Exception as error:
        print(type(error).__name__)
    else:
        print(set(data) == {7}, len(data))
"""


def look(path: Path) -> str:
    done = subprocess.run([sys.executable, "-c", LOOK, path], capture_output=True, text=True,
                          timeout=120)  # fmt: skip
    return done.stdout.strip() or done.stderr


def test_a_deflate_bomb_is_its_cluster(tmp_path: Path) -> None:
    """QEMU takes a stream that goes on behind its cluster, and so do we."""
    path = tmp_path / "bomb.qcow2"
    path.write_bytes(packed(deflate(), 0))
    assert look(path) == "True 65536"
    if shutil.which("qemu-io"):
        words = ["qemu-io", "-f", "qcow2", "-r", "-c", "read -P 7 0 64k", str(path)]
        assert "verification failed" not in subprocess.run(
            words, check=True, capture_output=True, text=True
        ).stdout


def test_a_zstd_bomb_is_refused(tmp_path: Path) -> None:
    """A frame must end with its cluster, as in QEMU."""
    path = tmp_path / "bomb.qcow2"
    path.write_bytes(packed(zstd(CLUSTER), 1))
    assert look(path) == "True 65536"
    path.write_bytes(packed(zstd(), 1))
    with Image(path) as image, pytest.raises(PyvirtError, match="cannot be unpacked"):
        image.read(0, CLUSTER)
    with Image(path) as image, pytest.raises(PyvirtError, match="cannot be unpacked"):
        image.read(100, 1)


@pytest.mark.parametrize("kind", ["zlib", "bzip2", "lzma"])
def test_a_chunk_of_a_dmg_that_claims_gigabytes_is_refused(kind: str) -> None:
    """The largest chunk that QEMU reads has 64 MiB."""
    data = bytearray(build.dmg([(kind, b"\7" * BOMB)]))
    with pytest.raises(PyvirtError), Image(BytesSource(bytes(data)), "dmg") as image:
        image.read(0, 1)
