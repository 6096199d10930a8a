"""Cached files are where the user's system says, and are never seen half-written."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pyvirt.running.host.cache import cache_directory, replace


@pytest.mark.parametrize(
    ("value", "found"),
    [("/x/cache", "/x/cache/pyvirt"), ("relative", "/h/.cache/pyvirt"), ("", "/h/.cache/pyvirt")],
)
def test_the_directory_follows_the_xdg_specification(
    monkeypatch: pytest.MonkeyPatch, value: str, found: str
) -> None:
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_directory() == Path(found)


def test_readers_see_whole_files_only(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file"
    contents = [bytes([number]) * 100_000 for number in range(20)]
    replace(file, contents[0])
    writers = [threading.Thread(target=replace, args=(file, each)) for each in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert file.read_bytes() in contents
    assert file.read_bytes() in contents
    assert [each.name for each in file.parent.iterdir()] == ["file"]


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path) -> None:
    directory = tmp_path / "file"
    directory.mkdir()
    with pytest.raises(IsADirectoryError):
        replace(directory, b"x")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
