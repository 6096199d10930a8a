"""Images of all formats made by QEMU's tools, and what QEMU reads in them."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyvirt.image.budget import Budget
from pyvirt.image.extents import Flag
from pyvirt.image.formats import format_module
from pyvirt.image.layer import Layer, Reference
from pyvirt.image.source import FileSource, Source

SECTOR = 512


def qemu_img(*words: str | Path) -> str:
    """What `qemu-img` prints; it must succeed."""
    command = ["qemu-img", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def qemu_io(path: Path, format: str, *commands: str) -> None:
    """Run `qemu-io` commands on an image."""
    words = [word for command in commands for word in ("-c", command)]
    done = subprocess.run(
        ["qemu-io", "-f", format, *words, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def create(path: Path, format: str, size: int, **options: Any) -> Path:
    """An empty image."""
    text = ",".join(f"{key}={value}" for key, value in options.items())
    qemu_img("create", "-q", "-f", format, *(["-o", text] if text else []), path, str(size))
    return path


def writes(size: int, seed: int, count: int = 12) -> list[str]:
    """Writes of whole sectors all over a disk of `size` bytes, its first and last ones too."""
    rng = random.Random(seed)
    sectors = size // SECTOR
    last = max(0, sectors - 3)
    spots = [(0, min(3, sectors)), (last, sectors - last)] if sectors else []
    for _ in range(count if sectors else 0):
        at = rng.randrange(sectors)
        spots.append((at, min(rng.choice([1, 7, 64, 300]), sectors - at)))
    return [
        f"write -P {rng.randrange(1, 256)} {at * SECTOR} {length * SECTOR}" for at, length in spots
    ]


def written(path: Path, format: str, size: int, seed: int = 1, **options: Any) -> Path:
    """An image with data scattered over it."""
    create(path, format, size, **options)
    commands = writes(size, seed)
    if commands:
        qemu_io(path, format, *commands)
    return path


def content(path: Path, format: str) -> bytes:
    """What a guest reads, told by `qemu-img convert`."""
    raw = path.with_name(path.name + ".content")
    qemu_img("convert", "-f", format, "-O", "raw", path, raw)
    data = raw.read_bytes()
    raw.unlink()
    return data


def qemu_map(path: Path, format: str) -> list[dict[str, Any]]:
    """What `qemu-img map` tells."""
    told = qemu_img("map", "--output=json", "-f", format, path)
    extents: list[dict[str, Any]] = json.loads(told)
    return extents


def sibling(folder: Path, opened: list[FileSource]) -> Any:
    """Opens what an image names beside it; `opened` collects what must be closed."""

    def open(reference: Reference) -> Source:
        source = FileSource(folder / Path(reference.name).name)
        opened.append(source)
        return source

    return open


def no_sibling(reference: Reference) -> Source:
    """For images that must not open another file."""
    pytest.fail(f"{reference} was opened")


def layer_of(source: Source, format: str, siblings: Any = no_sibling) -> Layer:
    return format_module(format).open(source, budget=Budget(), siblings=siblings)


def pieces(layer: Layer) -> Iterator[tuple[int, bytes | None]]:
    """Each extent's bytes, None where the layer has nothing: read slowly and obviously."""
    end = 0
    for extent in layer.extents():
        assert extent.start == end
        assert extent.length > 0
        end = extent.end
        if not extent.present:
            yield extent.start, None
        elif extent.zero:
            yield extent.start, bytes(extent.length)
        else:
            source = layer.sources[extent.file]
            if extent.compressed:
                stored = source.pread(extent.stored, extent.host)
                yield extent.start, layer.inflate(stored, extent.length)
            else:
                yield extent.start, source.pread(extent.length, extent.host)
    assert end == layer.size


def read(layer: Layer, below: bytes = b"") -> bytes:
    """The whole content of a layer over `below`, whose end is followed by zeros."""
    data = bytearray(below[: layer.size].ljust(layer.size, b"\0"))
    for start, piece in pieces(layer):
        if piece is not None:
            data[start : start + len(piece)] = piece
    return bytes(data)


def told(extents: Iterable[dict[str, Any]]) -> list[tuple[int, int, bool, int | None]]:
    """QEMU's map without what depends on its drivers: joined extents of data and their places."""
    joined: list[tuple[int, int, bool, int | None]] = []
    for one in extents:
        _join(joined, one["start"], one["length"], one["data"], one.get("offset"))
    return joined


def ours(layer: Layer) -> list[tuple[int, int, bool, int | None]]:
    """The same of a layer."""
    joined: list[tuple[int, int, bool, int | None]] = []
    for one in layer.extents():
        place = one.host if one.flags & Flag.OFFSET else None
        _join(joined, one.start, one.length, one.allocated, place)
    return joined


def _join(joined: list[Any], start: int, length: int, data: bool, place: int | None) -> None:
    if not length:
        return
    if not data:
        place = None
    if joined:
        before, size, was, at = joined[-1]
        after = None if at is None else at + size
        if was == data and before + size == start and after == place:
            joined[-1] = (before, size + length, data, at)
            return
    joined.append((start, length, data, place))
