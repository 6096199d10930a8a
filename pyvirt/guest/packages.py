"""Reads Debian packages (`.deb`: an ar archive of tar archives) and what apt prints of them."""

from __future__ import annotations

import io
import lzma
import re
import tarfile
from collections.abc import Iterator
from typing import IO, BinaryIO

from attrs import frozen

from pyvirt.errors import ProtocolError
from pyvirt.guest.unpack import unpack

_AR = b"!<arch>\n"
_AR_HEADER = 60
_URI = re.compile(r"^'[^']+' (?P<file>\S+\.deb) (?P<size>\d+)", re.MULTILINE)
_WORD = re.compile(r"^[ |]*(?:\w+: )?<?([a-z0-9][^\s<>]*)>?$", re.MULTILINE)
_KERNEL = re.compile(r"linux-(image|modules|modules-extra)-\d")


@frozen
class Archive:
    """A package that apt can fetch: `file` is ``name_version_architecture.deb``."""

    file: str
    size: int

    @property
    def name(self) -> str:
        """The name of the package."""
        return self.file.partition("_")[0]

    @property
    def version(self) -> str:
        """The version as apt takes it in ``name=version``."""
        return self.file.split("_")[1].replace("%3a", ":")


def archives(print_uris: str) -> list[Archive]:
    """The packages that `apt-get --print-uris` says it would fetch."""
    return [Archive(m["file"], int(m["size"])) for m in _URI.finditer(print_uris)]


def kernel_packages(depends: str) -> list[str]:
    """The names of kernel image and module packages in the output of `apt-cache depends`."""
    words = set(_WORD.findall(depends))
    return sorted(word for word in words if _KERNEL.match(word) and "unsigned" not in word)


def contents(package: BinaryIO, name: str) -> tarfile.TarFile:
    """The files of the `.deb` *package*, to be read in their order."""
    for member, size in _members(package, name):
        if member.startswith("data.tar"):
            data = package.read(size)
            return tarfile.open(fileobj=_decompressed(member, data), mode="r|")
    raise ProtocolError(name, "holds no data.tar", package.tell())


def _decompressed(member: str, data: bytes) -> IO[bytes]:
    if member.endswith(".xz"):  # as it is read: Debian's kernels are 400 MB unpacked
        return lzma.LZMAFile(io.BytesIO(data))
    return io.BytesIO(unpack(data, member))


def _members(package: BinaryIO, name: str) -> Iterator[tuple[str, int]]:
    """Name and size of each member of an ar archive; the stream is then at its contents."""
    if package.read(len(_AR)) != _AR:
        raise ProtocolError(name, "is not a Debian package", 0)
    while header := package.read(_AR_HEADER):
        start, size = package.tell(), header[48:58].strip()
        if not header.endswith(b"`\n") or not size.isdigit():
            raise ProtocolError(name, "has a damaged member header", start)
        yield header[:16].decode("ascii", "replace").strip().rstrip("/"), int(size)
        package.seek(start + int(size) + int(size) % 2)
