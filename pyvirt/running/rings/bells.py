"""What wakes who waits for a guest to do something: the eventfds that its devices are kicked by.

A driver that wants a queue looked at writes to a register, and whoever serves the queue is told
through an eventfd. A copy of it in an epoll wakes us too, so nobody polls a guest that does
nothing. Which of QEMU's eventfds are kicks is not told: a tracer learns it from what it sees.
"""

from __future__ import annotations

import os
import select
from contextlib import ExitStack, suppress
from typing import Self

from pyvirt._native.trace import duplicate

_EVENTFD = "anon_inode:[eventfd]"


class Bells:
    """The eventfds of a process, in one epoll. Use it in a ``with``, or `close` it.

    It is empty where taking descriptors of that process is not allowed (ptrace(2) rules).
    """

    def __init__(self, pid: int) -> None:
        with ExitStack() as stack:
            self._epoll = stack.enter_context(select.epoll())
            self.count = sum(self._add(fd, stack) for fd in _taken(pid))
            self._stack = stack.pop_all()

    def _add(self, fd: int, stack: ExitStack) -> int:
        stack.callback(os.close, fd)
        # Edges alone: that nobody has read the event yet is no news. Writable, as it is always:
        # an epoll that wakes when QEMU has read the event already would sleep on.
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        return 1

    def fileno(self) -> int:
        """The epoll, or -1 where no bell can ring."""
        return self._epoll.fileno() if self.count else -1

    def close(self) -> None:
        """Give the descriptors back."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Bells: {self.count} eventfds>"


def _taken(pid: int) -> list[int]:
    """Copies of the eventfds of a process; none where that is not allowed."""
    taken = []
    with suppress(PermissionError):
        process = os.pidfd_open(pid)
        try:
            for number in _eventfds(pid):
                with suppress(FileNotFoundError):  # closed meanwhile; EBADF is no subclass
                    taken.append(duplicate(process, number))
        finally:
            os.close(process)
    return taken


def _eventfds(pid: int) -> list[int]:
    found = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            if os.readlink(entry.path) == _EVENTFD:
                found.append(int(entry.name))
    return found
