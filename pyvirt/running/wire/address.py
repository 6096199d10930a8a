"""Sockets to monitors that listen somewhere."""

from __future__ import annotations

import os
import socket

Address = str | os.PathLike[str] | tuple[str, int]
"""The path of a Unix socket, or a host and a port."""

_LONGEST = 107  # bytes of sun_path before its closing zero


def dial(address: Address, timeout: float | None) -> socket.socket:
    """A socket connected to `address` within `timeout` seconds; raises `OSError`."""
    if isinstance(address, tuple):
        sock = socket.create_connection(address, timeout)
        # A command is one small packet: Nagle would hold it back for the reply's ACK.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        _connect(sock, os.fsencode(address))
    except BaseException:
        sock.close()
        raise
    return sock


def _connect(sock: socket.socket, path: bytes) -> None:
    if len(path) <= _LONGEST:
        sock.connect(path)
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(b"/proc/self/fd/%d/%s" % (fd, name))
    finally:
        os.close(fd)
