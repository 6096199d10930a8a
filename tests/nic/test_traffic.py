"""The messages are compared with those that iproute2 6.1 sends for the same limits."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.nic import traffic

MB = 1_000_000
BURST = 128 * 1024


def attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind & 0x7FFF] = data[at + 4 : at + length]
        at += length + 3 & ~3
    return found


def parse(message: bytes) -> tuple[int, int, tuple[int, ...], dict[int, bytes]]:
    length, kind, flags, _, _ = struct.unpack_from("=IHHII", message)
    assert length == len(message)
    header = struct.unpack_from("=BxHiIII", message, 16)
    return kind, flags, header, attributes(message[36:])


def test_what_the_guest_receives_is_delayed_by_a_token_bucket():
    # tc qdisc add dev t0 root tbf rate 8mbit burst 128kb latency 50ms
    message = traffic.shaping(2, MB, BURST)
    kind, flags, header, found = parse(message)
    assert (kind, header) == (0x24, (0, 0, 2, 0, 0xFFFFFFFF, 0))
    assert flags == 0x505  # request, ack, create, replace
    assert found[1] == b"tbf\0"
    options = attributes(found[2])
    spec = bytes.fromhex("03010000ffff0000 40420f00")
    assert options[1] == spec + bytes(12) + bytes.fromhex("50c30200") + bytes(8)
    assert options[6] == bytes.fromhex("00000200")


def test_what_the_guest_sends_is_policed_on_arrival():
    # tc qdisc add dev t0 ingress
    # tc filter add dev t0 ingress matchall action police rate 8mbit burst 128k mtu 1mb drop
    hook, filter_ = traffic.policing(2, MB, BURST)
    kind, _, header, found = parse(hook)
    assert (kind, header, found) == (0x24, (0, 0, 2, 0xFFFF0000, 0xFFFFFFF1, 0), {1: b"ingress\0"})

    kind, flags, header, found = parse(filter_)
    assert (kind, flags) == (0x2C, 0x405)
    assert header == (0, 0, 2, 0, 0xFFFFFFF2, 1 << 16 | 0x0300)
    assert found[1] == b"matchall\0"
    action = attributes(attributes(attributes(found[2])[2])[1])
    assert action[1] == b"police\0"
    police = attributes(action[2])
    head = bytes.fromhex("00000000 02000000 00000000 00401f00 00001000")
    assert police[1][:20] == head
    assert police[1][20:22] == b"\x03\x01"
    assert police[1][28:32] == bytes.fromhex("40420f00")
    assert len(police[1]) == 56
    assert len(police[2]) == 1024


def test_rates_beyond_32_bits_have_an_attribute_of_their_own():
    ten = 10 << 30
    message = traffic.shaping(1, ten, BURST)
    options = attributes(parse(message)[3][2])
    assert struct.unpack("=Q", options[4]) == (ten,)
    assert options[1][8:12] == b"\xff\xff\xff\xff"


def test_taking_limits_off_names_both_places():
    parents = [parse(message)[2][4] for message in (traffic.unshaped(3), traffic.unpoliced(3))]
    assert parents == [0xFFFFFFFF, 0xFFFFFFF1]


@pytest.mark.parametrize(("code", "number"), [(0, 0), (-2, 2)])
def test_the_kernels_answer_is_an_errno(code, number):
    reply = struct.pack("=IHHIIi", 36, 2, 0, 0, 0, code) + bytes(16)
    assert traffic.error(reply) == number


@given(st.binary(min_size=32, max_size=200))
def test_no_answer_about_a_link_hangs(reply):
    assert traffic.master(reply) >= 0


def test_the_master_of_a_link_is_read():
    body = bytes(16) + struct.pack("=HH4s", 8, 3, b"tap\0") + struct.pack("=HHI", 8, 10, 7)
    reply = struct.pack("=IHHII", 16 + len(body), 16, 0, 0, 0) + body
    assert traffic.master(reply) == 7
    assert traffic.master(reply[:40].replace(reply[:4], struct.pack("=I", 40))) == 0
