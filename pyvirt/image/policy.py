"""Which other files an image may make us open: none, unless the caller allows it.

Names are those of a stranger. What they stand for is looked at through a descriptor that opens
nothing (``O_PATH``), so that no FIFO is waited for and no device is started by being opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from attrs import frozen

from pyvirt.errors import ChainError, PolicyError
from pyvirt.image.beneath import open_beneath
from pyvirt.image.layer import Reference
from pyvirt.image.names import NoFile, named
from pyvirt.image.source import FileSource, Source

#: False: nothing. True: whatever the images name on this host. A directory: regular files
#: beneath it. A list: these files, by the paths that QEMU would open. A callable: asked with a
#: `Request`, gives a source (closed with the image), a path, True for the path of the request, or
#: None to refuse.
Trust = (
    bool | str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Callable[["Request"], Any]
)


#: Regular files by their mode; their bytes are memory, settings and the like.
_KERNEL = ("/proc/", "/sys/")


@frozen
class Trail:
    """How an image was come to: the names that led to it, its own last, and its path."""

    names: tuple[str, ...]
    #: None when it was not opened by a path.
    path: str | None

    def to(self, request: Request, name: str) -> Trail:
        """On to the image that was opened for `request`."""
        return Trail((*self.names, name), request.path)


@frozen
class Request:
    """Another file that the image at the end of `trail` names, and the path QEMU would open."""

    reference: Reference
    path: str
    #: The format that the name, or else the image, says the file has.
    format: str | None
    trail: Trail

    def refused(self, reason: str) -> PolicyError:
        return PolicyError(self.reference.name, reason, self.trail.names)


def request(reference: Reference, trail: Trail) -> Request:
    """What the last image of `trail` asks for; `PolicyError` if that is no file of this host."""
    try:
        one = named(reference, trail.path)
    except NoFile as reason:
        raise PolicyError(reference.name, str(reason), trail.names) from None
    return Request(reference, one.path, one.format or reference.format, trail)


class Policy(Protocol):
    """Opens what images name, or raises `PolicyError`; `ChainError` if it cannot be opened."""

    def open(self, request: Request, /) -> Source: ...


class Nothing:
    """Opens no other file."""

    def open(self, request: Request, /) -> Source:
        raise request.refused("trust=False opens no other file; name what may be opened in trust")


class Everything:
    """Opens whatever file or block device of this host the images name."""

    def open(self, request: Request, /) -> Source:
        return _open(request, request.path)


@frozen
class Beneath:
    """Opens regular files beneath a directory, whatever symbolic links there are."""

    directory: str

    def open(self, request: Request, /) -> Source:
        inside = _inside(self.directory, request.path)
        if inside is None:
            raise request.refused(f"it is not beneath {self.directory}")
        try:
            fd = open_beneath(self.directory, inside)
        except OSError as error:
            raise _failed(request, error) from error
        if fd is None:
            raise request.refused(f"it leads out of {self.directory}")
        return _reopen(request, fd, blocks=False)


@frozen
class Listed:
    """Opens these files."""

    paths: tuple[str, ...]

    def open(self, request: Request, /) -> Source:
        # The list's own words are opened; those of the image are only compared.
        wanted = os.path.normpath(request.path)
        for path in self.paths:
            if os.path.normpath(path) == wanted:
                return _open(request, path)
        raise request.refused("it is not in the list of files that may be opened")


@frozen
class Asked:
    """Opens what a callable says."""

    answer: Callable[[Request], Any]

    def open(self, request: Request, /) -> Source:
        answer = self.answer(request)
        if answer is None or answer is False:
            raise request.refused("the caller refused it")
        if answer is True:
            return _open(request, request.path)
        if isinstance(answer, str | os.PathLike):
            return _open(request, os.fspath(answer))
        return answer  # type: ignore[no-any-return]


def policy(trust: Trust) -> Policy:
    """The policy that `trust` stands for."""
    if isinstance(trust, bool):
        return Everything() if trust else Nothing()
    if isinstance(trust, str | os.PathLike):
        return Beneath(os.path.abspath(trust))
    if callable(trust):
        return Asked(trust)
    if not isinstance(trust, Sequence):
        raise TypeError(f"trust is a bool, a directory, a list or a callable, got {trust!r}")
    return Listed(tuple(os.path.abspath(one) for one in trust))


def _inside(directory: str, path: str) -> str | None:
    """`path` as seen from `directory`, or None: by the text, so that nothing is touched."""
    root = directory.rstrip("/") + "/"
    for text in (path, os.path.normpath(path)):
        if text.startswith(root) and text != root:
            return text.removeprefix(root).lstrip("/")
    return None


def _open(request: Request, path: str) -> Source:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _failed(request, error) from error
    return _reopen(request, fd, blocks=True)


def _reopen(request: Request, fd: int, *, blocks: bool) -> Source:
    """The file behind an ``O_PATH`` descriptor, opened for reading if its kind may be."""
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode) and not (blocks and stat.S_ISBLK(mode)):
            raise request.refused("it is no regular file" + " or block device" * blocks)
        if os.readlink(f"/proc/self/fd/{fd}").startswith(_KERNEL):
            raise request.refused("it is a file of the kernel's, which lies on no disk")
        return FileSource(fd, request.path)
    except OSError as error:
        raise _failed(request, error) from error
    finally:
        os.close(fd)


def _failed(request: Request, error: OSError | ValueError) -> ChainError:
    why = getattr(error, "strerror", None) or str(error)
    return ChainError(request.path, f"could not be opened: {why}", request.trail.names)
