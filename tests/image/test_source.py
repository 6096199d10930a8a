"""Where bytes come from, at the places that no file has."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyvirt.image import BytesSource, FileSource

LAST = (1 << 63) - 1


@pytest.mark.parametrize("offset", [9, 10, 1 << 40, LAST - 5, LAST, LAST + 1, 1 << 64, 1 << 80])
@pytest.mark.parametrize("size", [0, 1, 4096])
def test_nothing_is_beyond_the_end(tmp_path: Path, offset: int, size: int) -> None:
    """Headers name such places; what the kernel would refuse is read as the end of the file."""
    (tmp_path / "a").write_bytes(b"0123456789")
    buffer = bytearray(size)
    with FileSource(tmp_path / "a") as source:
        assert source.pread(size, offset) == BytesSource(b"0123456789").pread(size, offset)
        assert source.preadinto(buffer, offset) == len(source.pread(size, offset))
