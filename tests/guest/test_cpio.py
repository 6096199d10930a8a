"""Archives that pyvirt writes are read by cpio itself, and mean what was described."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.errors import SpecError
from pyvirt.guest import cpio

needs_cpio = pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")


def archive(*entries: cpio.Entry) -> bytes:
    return b"".join(cpio.newc(entries))


def extract(data: bytes, into: Path) -> Path:
    command = ["cpio", "--extract", "--quiet", "--make-directories", "-m"]
    into.mkdir()
    subprocess.run(command, input=data, cwd=into, check=True, timeout=60)
    return into


@needs_cpio
def test_cpio_reads_back_files_directories_and_links(tmp_path: Path) -> None:
    root = extract(
        archive(
            cpio.directory("etc", 0o750),
            cpio.regular("etc/a", b"odd", 0o640),
            cpio.regular("etc/empty", b""),
            cpio.regular("etc/program", b"#!", 0o4755),
            cpio.symlink("link", "etc/a"),
        ),
        tmp_path / "root",
    )
    assert (root / "etc/a").read_bytes() == b"odd"
    assert (root / "etc/empty").read_bytes() == b""
    assert stat.S_IMODE((root / "etc").stat().st_mode) == 0o750
    assert stat.S_IMODE((root / "etc/a").stat().st_mode) == 0o640
    assert (root / "link").readlink() == Path("etc/a")
    assert (root / "etc/a").stat().st_mtime == 0


@needs_cpio
def test_cpio_lists_a_device_node_with_its_numbers() -> None:
    data = archive(cpio.character("console", 5, 1))
    command = ["cpio", "--list", "--verbose", "--numeric-uid-gid"]
    listed = subprocess.run(command, input=data, capture_output=True, check=True, timeout=60)
    assert listed.stdout.split()[:6] == [b"crw-------", b"1", b"0", b"0", b"5,", b"1"]


# File names of Linux: any bytes but NUL and slash, not "." or "..", 255 of them.
names = (
    st.binary(min_size=1, max_size=60)
    .filter(lambda name: not {0, ord("/")} & set(name) and name not in (b".", b".."))
    .map(lambda name: name.decode("utf-8", "surrogateescape"))
)


@needs_cpio
@settings(max_examples=40, deadline=None)
@given(files=st.dictionaries(names, st.binary(max_size=5000), max_size=6))
def test_any_name_and_content_survives(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    entries = [cpio.regular(name, data) for name, data in files.items()]
    root = extract(archive(*entries), tmp_path_factory.mktemp("any") / "root")
    assert {path.name: path.read_bytes() for path in root.iterdir()} == files


@pytest.mark.parametrize("path", ["", "/etc", "a\0b", "TRAILER!!!"])
def test_a_path_that_no_archive_can_hold_is_refused(path: str) -> None:
    with pytest.raises(SpecError) as caught:
        cpio.regular(path, b"")
    assert caught.value.field == "path"
    assert str(caught.value) == f"path must be a relative path without NUL, got {path!r}"


def test_a_path_that_linux_would_skip_is_refused() -> None:
    cpio.regular("a" * 4095, b"")
    with pytest.raises(SpecError, match="must not be longer than 4095 bytes"):
        cpio.regular("a" * 4096, b"")


def test_an_archive_is_aligned_and_ends_with_its_trailer() -> None:
    data = archive(cpio.regular("x", b"12345"))
    assert len(data) % 4 == 0
    assert data.endswith(b"TRAILER!!!\0\0\0\0")
