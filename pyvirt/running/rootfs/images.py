"""Images on disk: layouts and archives, opened, and their layers given out in order."""

from __future__ import annotations

import os
import platform
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from pyvirt.errors import RootFSError
from pyvirt.fields import frozen
from pyvirt.guest.tar import BLOCK
from pyvirt.rootfs import DockerArchive, OciImage, Tarball, oci
from pyvirt.rootfs.layer import Allowance, Entries, Owners
from pyvirt.rootfs.oci import ARCHITECTURES, Blob, Fault, Image
from pyvirt.rootfs.packing import unpacked
from pyvirt.rootfs.process import Process
from pyvirt.running.rootfs.extract import Extraction, Rules
from pyvirt.running.rootfs.stream import Reader, verified, window
from pyvirt.running.rootfs.watch import Watch


@frozen
class Layer:
    """One layer: `pieces(watch, what)` of its tar, decompressed and verified; its name."""

    name: str
    pieces: Callable[[Watch, str], Iterator[bytes]]


Opened = tuple[list[Layer], Process]
"""The layers of an image, the lowest first, and what it wants to run."""


def unpack(
    rootfs: OciImage | DockerArchive | Tarball, root: Path, owners: Owners, watch: Watch
) -> Process | None:
    """Write what *rootfs* holds below the directory *root*; what its image wants to run."""
    rules = Rules(owners, rootfs.devices)
    allowance = Allowance(rootfs.limit, rootfs.entries)
    with ExitStack() as stack, Extraction(root, rules, allowance) as extraction:
        if isinstance(rootfs, Tarball):
            _tarball(rootfs.path, extraction, allowance, watch)
            return None
        layers, process = stack.enter_context(_opening(rootfs, watch, allowance))
        for number, layer in enumerate(layers, 1):
            what = f"unpacking layer {number} of {len(layers)}"
            pieces = _bounded(layer.pieces(watch, what), allowance, _faults(rootfs, layer.name))
            reader = Reader(pieces)
            extraction.archive(reader, str(rootfs.path), layer.name, layered=True)
        return process


def _opening(
    rootfs: OciImage | DockerArchive, watch: Watch, allowance: Allowance
) -> AbstractContextManager[Opened]:
    if isinstance(rootfs, OciImage):
        return _layout(rootfs, watch)
    return _docker(rootfs, watch, allowance)


def tar_pieces(path: Path, watch: Watch, what: str) -> Iterator[bytes]:
    """The bytes of the tar in a file, decompressed."""
    with _opened(path) as fd:
        packed = window(fd, 0, os.fstat(fd).st_size, watch, what)
        yield from unpacked(packed, lambda reason: RootFSError(path, reason))


def _tarball(path: Path, extraction: Extraction, allowance: Allowance, watch: Watch) -> None:
    pieces = tar_pieces(path, watch, f"unpacking {path.name}")
    bounded = _bounded(pieces, allowance, lambda reason: RootFSError(path, reason))
    extraction.archive(Reader(bounded), str(path), None, layered=False)


def _bounded(pieces: Iterator[bytes], allowance: Allowance, fault: Fault) -> Iterator[bytes]:
    """Not more than the limit and what headers take, wherever in the stream it is."""
    room = allowance.limit + (allowance.most + 2) * 4 * BLOCK
    for piece in pieces:
        room -= len(piece)
        if room < 0:
            raise fault(f"unpacks to more than {allowance.limit} bytes; raise limit if that is "
                        "right")  # fmt: skip
        yield piece


def _faults(rootfs: OciImage | DockerArchive, layer: str | None = None) -> Fault:
    return lambda reason: RootFSError(rootfs.path, reason, layer=layer)


@contextmanager
def _opened(path: Path, folder: int | None = None, name: str = "") -> Iterator[int]:
    """A descriptor of a regular file; of `name` in a folder, not through a link."""
    try:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        if folder is None:
            fd = os.open(path, flags)
        else:
            fd = os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        raise RootFSError(path, f"has no {name}" if name else "is not there") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise RootFSError(path, f"has {name}, which is no file" if name else "is no file")
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _layout(rootfs: OciImage, watch: Watch) -> Iterator[Opened]:
    """The layers of an image in an OCI layout."""
    fault = _faults(rootfs)
    if not rootfs.path.is_dir():
        raise fault("is no directory with an OCI image layout")
    folder = os.open(rootfs.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        layout = _Layout(rootfs.path, folder, watch, fault)
        oci.document(layout.small("oci-layout"), "oci-layout", fault)
        index = oci.document(layout.small("index.json"), "index.json", fault)
        architecture = rootfs.architecture or _machine()
        image = oci.image_of(index, layout.blob, rootfs.tag, architecture, fault)
        yield layout.layers(image), image.process
    finally:
        os.close(folder)


def _machine() -> str:
    name = platform.machine()
    return ARCHITECTURES.get(name, name)


@frozen
class _Layout:
    """The files of a layout, below the descriptor `folder`."""

    path: Path
    folder: int
    watch: Watch
    fault: Fault

    def small(self, name: str) -> bytes:
        """A document."""
        with _opened(self.path, self.folder, name) as fd:
            if os.fstat(fd).st_size > oci.LARGEST:
                raise self.fault(f"has {name}, which is larger than {oci.LARGEST} bytes")
            return os.read(fd, oci.LARGEST)

    def blob(self, blob: Blob) -> bytes:
        """A document among the blobs, verified."""
        fault = self._of(blob)
        if blob.size > oci.LARGEST:
            raise fault(f"is a document larger than {oci.LARGEST} bytes")
        with _opened(self.path, self.folder, blob.path) as fd:
            pieces = window(fd, 0, blob.size, self.watch, "reading the image")
            return b"".join(verified(pieces, blob.digest, blob.size, fault))

    def layers(self, image: Image) -> list[Layer]:
        return [
            Layer(blob.digest, self._layer(blob, diff))
            for blob, diff in zip(image.layers, image.diffs, strict=True)
        ]

    def _layer(self, blob: Blob, diff: str) -> Callable[[Watch, str], Iterator[bytes]]:
        fault = self._of(blob)

        def pieces(watch: Watch, what: str) -> Iterator[bytes]:
            with _opened(self.path, self.folder, blob.path) as fd:
                stored = window(fd, 0, blob.size, watch, what)
                checked = verified(stored, blob.digest, blob.size, fault)
                yield from verified(unpacked(checked, fault), diff, None, fault)

        return pieces

    def _of(self, blob: Blob) -> Fault:
        return lambda reason: RootFSError(self.path, reason, layer=blob.digest)


@contextmanager
def _docker(rootfs: DockerArchive, watch: Watch, allowance: Allowance) -> Iterator[Opened]:
    """The layers of an image in a `docker save` archive, which may itself be compressed."""
    fault = _faults(rootfs)
    with _plain(rootfs.path, watch, allowance, fault) as fd:
        archive = _Archive(fd, rootfs, watch)
        manifest = archive.small("manifest.json")
        name, names = oci.docker_image(manifest, rootfs.tag, fault)
        config = oci.document(archive.small(name), "config", fault)
        image = oci.with_config(config, (), fault)
        if len(names) != len(image.diffs):
            raise fault(f"has {len(names)} layers, and {len(image.diffs)} in its config")
        layers = [archive.layer(*pair) for pair in zip(names, image.diffs, strict=True)]
        yield layers, image.process


@contextmanager
def _plain(path: Path, watch: Watch, allowance: Allowance, fault: Fault) -> Iterator[int]:
    """A descriptor of the archive, decompressed: its parts are not read in their order."""
    with _opened(path) as fd:
        start = os.pread(fd, BLOCK, 0)
        if start[257:262] == b"ustar" or not start:
            yield fd
            return
        with tempfile.TemporaryFile(dir=path.parent if os.access(path.parent, os.W_OK) else None
                                    ) as file:  # fmt: skip
            for piece in _bounded(
                tar_pieces(path, watch, f"decompressing {path.name}"), allowance, fault
            ):
                file.write(piece)
            file.flush()
            yield file.fileno()


class _Archive:
    """The members of a tar by name: where each begins, and how long it is."""

    def __init__(self, fd: int, rootfs: DockerArchive, watch: Watch) -> None:
        self._fd, self._rootfs, self._watch = fd, rootfs, watch
        self._places: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        self._index()

    def small(self, name: str) -> bytes:
        start, size = self._place(name)
        if size > oci.LARGEST:
            raise _faults(self._rootfs)(f"has {name}, which is larger than {oci.LARGEST} bytes")
        return os.pread(self._fd, size, start)

    def layer(self, name: str, diff: str) -> Layer:
        """A layer, which must be what the config says of it."""
        start, size = self._place(name)
        fault = _faults(self._rootfs, name)

        def pieces(watch: Watch, what: str) -> Iterator[bytes]:
            stored = window(self._fd, start, size, watch, what)
            return verified(unpacked(stored, fault), diff, None, fault)

        return Layer(name, pieces)

    def _place(self, name: str) -> tuple[int, int]:
        name = _normal(name)
        place = self._places.get(self._links.get(name, name))
        if place is None:
            raise _faults(self._rootfs)(f"has no {name}")
        return place

    def _index(self) -> None:
        """One pass over the headers; contents are passed over."""
        seeking = _Seeking(self._fd)
        entries = Entries(seeking.read, str(self._rootfs.path))
        for count, info in enumerate(entries):
            self._watch.go_on()
            if count > self._rootfs.entries:
                raise entries.fault(info, "is one entry too many")
            name = _normal(info.name)
            if info.isreg():
                self._places[name] = (seeking.place, info.size)
                entries.skip(seeking.skip)
            elif info.issym() or info.islnk():  # old ones name equal layers so
                base = name if info.issym() else ""
                self._links[name] = _normal(os.path.join(os.path.dirname(base), info.linkname))


class _Seeking:
    """Reads a file in order, and passes over what need not be read."""

    def __init__(self, fd: int) -> None:
        self._fd, self.place = fd, 0

    def read(self, size: int) -> bytes:
        data = os.pread(self._fd, size, self.place)
        self.place += len(data)
        return data

    def skip(self, size: int) -> int:
        """How much of it there was to pass over."""
        end = min(self.place + size, os.fstat(self._fd).st_size)
        passed, self.place = end - self.place, end
        return passed


def _normal(name: str) -> str:
    return os.path.normpath(name)
