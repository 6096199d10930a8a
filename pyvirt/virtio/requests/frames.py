"""Ethernet frames in one line each, in the way of tcpdump; frames may be cut."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

_ETHER_TYPES = {0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6", 0x88CC: "LLDP", 0x8847: "MPLS"}
_VLAN = (0x8100, 0x88A8)
_PROTOCOLS = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP", 41: "IPv6", 47: "GRE", 50: "ESP",
              58: "ICMPv6", 89: "OSPF", 132: "SCTP"}  # fmt: skip
_TCP_FLAGS = ((2, "S"), (1, "F"), (4, "R"), (8, "P"), (32, "U"), (16, "."))
_ICMP = {0: "echo reply", 3: "unreachable", 5: "redirect", 8: "echo request",
         11: "time exceeded"}  # fmt: skip
_ICMP6 = {1: "unreachable", 2: "packet too big", 128: "echo request", 129: "echo reply",
          133: "router solicitation", 134: "router advertisement", 135: "neighbor solicitation",
          136: "neighbor advertisement", 143: "multicast report"}  # fmt: skip


def mac(address: bytes) -> str:
    """An Ethernet address as people write it."""
    return address.hex(":")


def frame_summary(frame: bytes) -> str:
    """Who sends what to whom: "IPv4 10.0.2.15.40000 > 10.0.2.2.80: TCP S"."""
    if len(frame) < 14:
        return "cut frame"
    ether_type, at, tag = int.from_bytes(frame[12:14], "big"), 14, ""
    while ether_type in _VLAN and len(frame) >= at + 4:
        number = int.from_bytes(frame[at : at + 2], "big") & 0xFFF
        ether_type = int.from_bytes(frame[at + 2 : at + 4], "big")
        at, tag = at + 4, f"{tag}vlan {number} "
    return tag + (_network(ether_type, frame[at:]) or _plain(ether_type, frame))


def _plain(ether_type: int, frame: bytes) -> str:
    name = _ETHER_TYPES.get(ether_type, f"type 0x{ether_type:04x}")
    return f"{mac(frame[6:12])} > {mac(frame[:6])}: {name}"


def _network(ether_type: int, packet: bytes) -> str:
    """What a known network protocol says; "" where that is unknown or cut."""
    read = {0x0800: _ipv4, 0x86DD: _ipv6, 0x0806: _arp}.get(ether_type)
    return read(packet) if read else ""


def _arp(packet: bytes) -> str:
    if len(packet) < 28 or packet[4:6] != b"\x06\x04":
        return ""
    sender, wanted = IPv4Address(packet[14:18]), IPv4Address(packet[24:28])
    if packet[7] == 1:
        return f"ARP who-has {wanted} tell {sender}"
    return f"ARP {sender} is-at {mac(packet[8:14])}"


def _ipv4(packet: bytes) -> str:
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return ""
    head, protocol = (packet[0] & 15) * 4, packet[9]
    first = not int.from_bytes(packet[6:8], "big") & 0x1FFF
    ends = str(IPv4Address(packet[12:16])), str(IPv4Address(packet[16:20]))
    body = packet[max(20, head) :] if first else b""
    return f"IPv4 {_transport(protocol, ends, body, _ICMP)}{'' if first else ' fragment'}"


def _ipv6(packet: bytes) -> str:
    if len(packet) < 40 or packet[0] >> 4 != 6:
        return ""
    ends = str(IPv6Address(packet[8:24])), str(IPv6Address(packet[24:40]))
    protocol, body = packet[6], packet[40:]
    while protocol in (0, 43, 60) and len(body) >= 8:  # options that come before the rest
        protocol, body = body[0], body[(body[1] + 1) * 8 :]
    return f"IPv6 {_transport(protocol, ends, body, _ICMP6)}"


def _transport(protocol: int, ends: tuple[str, str], body: bytes, icmp: dict[int, str]) -> str:
    name = _PROTOCOLS.get(protocol, f"protocol {protocol}")
    source, target = ends
    if name in ("TCP", "UDP", "SCTP") and len(body) >= 4:
        ports = struct.unpack_from(">HH", body)
        source, target = f"{source}.{ports[0]}", f"{target}.{ports[1]}"
    more = _MORE.get(name, _nothing)(body, icmp)
    return f"{source} > {target}: {name}{more}"


def _tcp(body: bytes, icmp: dict[int, str]) -> str:
    if len(body) < 14:
        return ""
    flags = "".join(letter for mask, letter in _TCP_FLAGS if body[13] & mask)
    return f" [{flags or 'none'}]"


def _icmp(body: bytes, icmp: dict[int, str]) -> str:
    return f" {icmp.get(body[0], f'type {body[0]}')}" if body else ""


def _nothing(body: bytes, icmp: dict[int, str]) -> str:
    return ""


_MORE: dict[str, Callable[[bytes, dict[int, str]], str]] = {
    "TCP": _tcp, "ICMP": _icmp, "ICMPv6": _icmp,
}  # fmt: skip
