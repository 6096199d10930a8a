"""A kept container as one file: a tar, compressed by zstd.

Its first entry is ``pyvirt.json``: the description, and what the image wants to run. All
others are the root file system, below ``rootfs/``; owners are as the container sees them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tarfile import TarInfo
from typing import Any

import msgspec
from attrs import frozen

from pyvirt import fields
from pyvirt.container import Container
from pyvirt.errors import DiskFullError, PyvirtError, RootFSError
from pyvirt.files.read import build
from pyvirt.files.write import table
from pyvirt.guest import tar
from pyvirt.rootfs import IdMap, Process
from pyvirt.rootfs.archives import ENTRIES
from pyvirt.rootfs.layer import Allowance, Entries, Owners
from pyvirt.rootfs.packing import packed
from pyvirt.running.children.keeper import forget, keep
from pyvirt.running.kept.pack import tree_entries
from pyvirt.running.rootfs.extract import Extraction, Rules
from pyvirt.running.rootfs.images import tar_pieces
from pyvirt.running.rootfs.making import FULL
from pyvirt.running.rootfs.merged import merged
from pyvirt.running.rootfs.stream import Reader
from pyvirt.running.rootfs.watch import Watch
from pyvirt.running.tools.draft import beside

_DESCRIPTION, _ROOT = "pyvirt.json", "rootfs"
_VERSION = 1
_LARGEST = 1 << 20  # bytes of a description


def write(
    path: Path,
    container: Container,
    process: Process | None,
    layers: list[Path],
    idmap: IdMap | None,
    watch: Watch,
) -> Path:
    """Write the archive *path*, whole or not at all; it is not overwritten."""
    described = {"version": _VERSION, "container": table(container), "process": process}
    path = Path(os.path.abspath(path))
    if path.exists():
        raise FileExistsError(17, "File exists", str(path))
    draft = path.with_name(beside(path))
    keep(draft)
    try:
        # What liblxc mounts as an overlay has the host's ids, and a plain tree its own.
        owners = idmap if len(layers) > 1 else None
        with merged(layers, userxattr=owners is not None) as root, open(draft, "xb") as file:
            for piece in packed(_pieces(msgspec.json.encode(described), root, owners, watch)):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except OSError as error:
        if error.errno in FULL and not isinstance(error, PyvirtError):
            raise DiskFullError(watch.what, path.parent, error.errno) from None
        raise
    finally:
        draft.unlink(missing_ok=True)
        forget(draft)
    return path


def _pieces(described: bytes, root: int, idmap: IdMap | None, watch: Watch) -> Iterator[bytes]:
    info = TarInfo(_DESCRIPTION)
    info.size, info.mode = len(described), 0o600
    yield tar.header(info) + described + tar.padding(len(described))
    yield from tree_entries(root, _ROOT, idmap, watch)
    yield tar.END


@frozen
class Found:
    """What the beginning of an archive says; the rest of it is still to be unpacked."""

    container: Container
    process: Process | None
    _reader: Reader
    _entries: Entries
    _infos: Iterator[TarInfo]
    _devices: bool
    _limit: int

    def unpack(self, root: Path, idmap: IdMap | None) -> None:
        """Write its root file system below *root*."""
        rules, allowance = Rules(Owners(idmap), self._devices), Allowance(self._limit, ENTRIES)
        with Extraction(root, rules, allowance) as extraction:
            extraction.entries(self._infos, self._entries, below=_ROOT)
        self._reader.drain()


@contextmanager
def reading(path: Path, devices: bool, limit: int | str, watch: Watch) -> Iterator[Found]:
    """What lies in the archive *path*."""
    pieces = tar_pieces(path, watch, watch.what)
    reader = Reader(pieces)
    entries = Entries(reader.read, str(path))
    infos = iter(entries)
    first = next(infos, None)
    if first is None or first.name != _DESCRIPTION or not 0 < first.size <= _LARGEST:
        raise RootFSError(path, f"does not begin with {_DESCRIPTION}: it is no export of pyvirt")
    container, process = _described(b"".join(entries.content()), path)
    bytes_ = fields.size(limit, "limit")
    yield Found(container, process, reader, entries, infos, devices, bytes_)


def _described(data: bytes, path: Path) -> tuple[Container, Process | None]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RootFSError(path, f"has a {_DESCRIPTION} that is not JSON ({error})") from None
    if not isinstance(found, dict) or found.get("version") != _VERSION:
        version = found.get("version") if isinstance(found, dict) else None
        raise RootFSError(path, f"is of version {version!r}, and not of {_VERSION}")
    container = build(Container, _mapping(found.get("container"), path), "container")
    process = found.get("process")
    try:
        return container, None if process is None else msgspec.convert(process, Process)
    except msgspec.ValidationError as error:
        raise RootFSError(path, f"has a process that is none ({error})") from None


def _mapping(found: Any, path: Path) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise RootFSError(path, "has no description of a container")
    return found
