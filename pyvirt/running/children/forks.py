"""Pipes whose end means something, so that a forked child must not keep them open."""

from __future__ import annotations

import fcntl
import os
import threading

# Held while the set and the descriptors differ; a fork waits for that. Re-entrant, because a
# signal handler may fork in between.
_lock = threading.RLock()
_private: set[int] = set()


def private_pipe() -> tuple[int, int]:
    """A reading end, and a writing end that no forked child has. Both are above the standard
    descriptors and close on exec; close the writing end with `close_private`.
    """
    with _lock:
        reader, writer = (_above_standard(fd) for fd in os.pipe())
        _private.add(writer)
    return reader, writer


def close_private(fd: int) -> None:
    with _lock:
        _private.remove(fd)
        os.close(fd)


def _above_standard(fd: int) -> int:
    if fd > 2:
        return fd
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return copy


def _in_child() -> None:
    for fd in _private:
        os.close(fd)
    _private.clear()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_in_child)
