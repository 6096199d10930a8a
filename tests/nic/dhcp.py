"""A guest's side of DHCP (RFC 2131, 2132), to ask QEMU's user network what it was told."""

from __future__ import annotations

import socket
import struct

MAC = bytes.fromhex("525400abcdef")
DISCOVER, OFFER = 1, 2
MASK, ROUTER, DNS, HOSTNAME, DOMAIN = 1, 3, 6, 12, 15
TYPE, TFTP_SERVER, SEARCH = 53, 66, 119


def discover() -> bytes:
    """An Ethernet frame that asks for an address."""
    bootp = struct.pack("!BBBBIHH16x16s192x", 1, 1, 6, 0, 0xFEED, 0, 0x8000, MAC)
    bootp += b"\x63\x82\x53\x63" + bytes((TYPE, 1, DISCOVER, 255))
    udp = struct.pack("!HHHH", 68, 67, 8 + len(bootp), 0) + bootp
    ip = struct.pack("!BBHHHBBHI4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, 0, b"\xff" * 4)
    total = sum(struct.unpack("!10H", ip))
    check = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ip = ip[:10] + struct.pack("!H", check) + ip[12:]
    return b"\xff" * 6 + MAC + b"\x08\x00" + ip + udp


class Offer:
    """What a DHCP server offers: `address`, `bootfile`, and `options` by number."""

    def __init__(self, frame: bytes) -> None:
        bootp = frame[42:]
        self.address = socket.inet_ntoa(bootp[16:20])
        self.bootfile = bootp[108:236].split(b"\0")[0]
        self.options: dict[int, bytes] = {}
        at = 240
        while at < len(bootp) and bootp[at] != 255:
            length = bootp[at + 1]
            self.options[bootp[at]] = bootp[at + 2 : at + 2 + length]
            at += 2 + length

    def address_of(self, option: int) -> str:
        return socket.inet_ntoa(self.options[option][:4])


def send(wire: socket.socket, frame: bytes) -> None:
    """Send a frame over the socket of a `Stream`."""
    wire.sendall(struct.pack("!I", len(frame)) + frame)


def receive(wire: socket.socket) -> bytes:
    """The next frame from the socket of a `Stream`."""
    (length,) = struct.unpack("!I", _exactly(wire, 4))
    return _exactly(wire, length)


def ask(wire: socket.socket) -> Offer:
    """The offer of the server on the other end of `wire`."""
    send(wire, discover())
    while True:
        frame = receive(wire)
        if frame[12:14] == b"\x08\x00" and frame[23] == 17 and frame[36:38] == b"\x00\x44":
            return Offer(frame)


def _exactly(wire: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = wire.recv(length - len(data))
        if not more:
            raise ConnectionError("the network is gone")
        data += more
    return data
