"""What is behind the disks: images of the same bytes, made before anything is measured."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from pyvirt.bench.disk import DiskPoint
from pyvirt.fields import sized
from pyvirt.running import tools
from pyvirt.running.children.keeper import TemporaryDirectory, temporary_directory

#: Where files are in memory.
MEMORY = Path("/dev/shm")

#: The bytes that are repeated; random ones, which nothing compresses or leaves out.
_PIECE = 1 << 20


class Images:
    """The images of a run's points, in directories that end with it. Use it in a ``with``."""

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self._directory = directory
        self._places: dict[str, TemporaryDirectory] = {}
        self._made: dict[tuple[object, ...], Path] = {}
        self._content = os.urandom(_PIECE)

    def make(self, points: Iterable[DiskPoint]) -> None:
        """Make what the points need. `OSError` (ENOSPC) before anything is written."""
        wanted = {key: point for point in points if (key := _key(point)) is not None}
        for backing in {point.backing for point in wanted.values()}:
            sizes = [p.size for p in wanted.values() if p.backing == backing]
            _check_room(self._place(backing), sum(sizes))
        for point in wanted.values():
            self.path(point)

    def path(self, point: DiskPoint) -> str:
        """The image behind a point; "" where it has none."""
        key = _key(point)
        if key is None:
            return ""
        if key not in self._made:
            target = self._place(point.backing) / f"disk{len(self._made)}.{point.format}"
            self._write(target, point)
            self._made[key] = target
        return str(self._made[key])

    def _write(self, target: Path, point: DiskPoint) -> None:
        raw = target if point.format == "raw" else target.with_suffix(".raw")
        with raw.open("wb") as file:
            for _piece in range(point.size // _PIECE):
                file.write(self._content)
            file.write(self._content[: point.size % _PIECE])
        if raw != target:
            tools.convert(raw, target, point.format, source_format="raw")
            raw.unlink()

    def _place(self, backing: str) -> Path:
        if backing not in self._places:
            parent = MEMORY if backing == "ram" else self._directory
            self._places[backing] = temporary_directory("pyvirt-bench-", place=parent)
        return self._places[backing].path

    def close(self) -> None:
        for place in self._places.values():
            place.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Images: {', '.join(map(str, self._made.values())) or 'none'}>"


def _key(point: DiskPoint) -> tuple[object, ...] | None:
    """Points with one key share an image. No two devices may have one qcow2 image open."""
    if point.backing == "null":
        return None
    own = point.name if point.format != "raw" and point.resident else ""
    return (*point.image, own)


def _check_room(place: Path, size: int) -> None:
    free = shutil.disk_usage(place).free
    if free < size:
        reason = f"the images need {sized(size)}, and {free >> 20} MiB are free"
        raise OSError(errno.ENOSPC, reason, str(place.parent))
