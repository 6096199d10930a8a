"""Temporary directories that are gone when this process is gone, even after `kill -9`.

One tiny program per process, started with the first directory, reads a pipe: it is told
what to keep in mind, and when the pipe ends it removes what is left.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import warnings
from pathlib import Path

from pyvirt._native import program
from pyvirt.running.children.forks import close_private, private_pipe


def temporary_directory(
    prefix: str = "pyvirt-", *, place: str | os.PathLike[str] | None = None
) -> TemporaryDirectory:
    """A new directory that only this user may enter, in `place` or where such things are."""
    return TemporaryDirectory(Path(tempfile.mkdtemp(prefix=prefix, dir=place)).absolute())


class TemporaryDirectory:
    """The directory `path`, removed with all it holds by `close()` or the end of this process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._owner: int | None = os.getpid()
        _keeper.keep(path)

    def close(self) -> None:
        """Remove it. In a forked child: nothing, it is the parent's."""
        if self._owner == os.getpid():
            shutil.rmtree(self.path)
            self._owner = None
            _keeper.forget(self.path)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._owner == os.getpid() and not sys.is_finalizing():
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=1, source=self)

    def __repr__(self) -> str:
        return f"<TemporaryDirectory {self.path}>"


def keep(path: Path) -> None:
    """Have the file or directory `path`, an absolute one, removed when this process is gone."""
    _keeper.keep(path)


def keep_group(path: Path) -> None:
    """Have all processes of the control group `path` killed when this process is gone.

    That happens before anything that is kept is removed. `forget` ends it.
    """
    _keeper.keep(path, b"@")


def forget(path: Path) -> None:
    """`path` may stay, or is gone already."""
    _keeper.forget(path)


class _Keeper:
    """The program, started when there is something to keep."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: dict[Path, bytes] = {}
        self._pipe: int | None = None

    def keep(self, path: Path, verb: bytes = b"+") -> None:
        with self._lock:
            self._paths[path] = verb
            self._tell(verb, path)

    def forget(self, path: Path) -> None:
        with self._lock:
            self._paths.pop(path, None)
            self._tell(b"-", path)

    def _tell(self, verb: bytes, path: Path) -> None:
        """Whoever killed the program gets a new one: it is told everything at its start."""
        if self._pipe is not None:
            try:
                os.write(self._pipe, _message(verb, path))
                return
            except BrokenPipeError:
                close_private(self._pipe)
                self._pipe = None
        if self._paths:
            self._pipe = _start()
            for each, how in self._paths.items():
                os.write(self._pipe, _message(how, each))


def _message(verb: bytes, path: Path) -> bytes:
    """Shorter than PIPE_BUF, as no path is longer: written whole."""
    return verb + os.fsencode(path) + b"\0"


def _start() -> int:
    """The writing end of a new keeper's pipe."""
    reader, writer = private_pipe()
    path = str(program("keeper"))
    try:
        child = os.posix_spawn(path, [path], {}, file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0)])
    except BaseException:
        close_private(writer)
        raise
    finally:
        os.close(reader)
    os.waitpid(child, 0)  # It goes on as a child of nobody, so that no wait() finds it.
    return writer


_keeper = _Keeper()


def _forked() -> None:
    """What a forked child keeps is its own."""
    global _keeper
    _keeper = _Keeper()


os.register_at_fork(after_in_child=_forked)
