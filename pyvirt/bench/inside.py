"""The program that holds a network namespace: ``python -m pyvirt.bench.inside FD``.

It is started in a namespace of its own. Each request that comes through the socket `FD` is
a number of queues; the answer is a new tap with as many, set up with the host's address:
its name, and a descriptor for each queue. It ends when the socket is closed.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

from pyvirt.errors import PyvirtError
from pyvirt.qemu.need import TapFds
from pyvirt.running.host.tap import open_tap, tap_name

#: The host's address on each tap, and the length of its network's prefix.
HOST, GUEST, PEER, PREFIX = "10.77.0.1", "10.77.0.2", "10.77.0.3", 24

# linux/sockios.h, linux/if.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
_IFF_UP = 1


def serve(server: socket.socket) -> None:
    """Answer until the other end is closed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _raise(control, "lo")
        while request := server.recv(16):
            try:
                _answer(server, control, int(request))
            except (OSError, PyvirtError) as error:
                server.send(f"!{error}".encode())


def _answer(server: socket.socket, control: socket.socket, queues: int) -> None:
    fds = open_tap(TapFds("tap", queues=queues, vnet_header=True))
    try:
        name = tap_name(fds[0])
        for request, address in ((_SIOCSIFADDR, HOST), (_SIOCSIFNETMASK, "255.255.255.0")):
            where = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, request, struct.pack("16s16s8x", name.encode(), where))
        _raise(control, name)
        socket.send_fds(server, [name.encode()], fds)
    finally:
        for fd in fds:
            os.close(fd)


def _raise(control: socket.socket, name: str) -> None:
    request = struct.pack("16sH22x", name.encode(), 0)
    (flags,) = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
    fcntl.ioctl(
        control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags | _IFF_UP)
    )


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as end:
        serve(end)
