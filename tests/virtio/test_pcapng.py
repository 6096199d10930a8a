"""Frames in pcap-ng: read back by a small reader of the format, and by tshark."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.traces import DISK, RX, TX, Made, blk, trace

from pyvirt.virtio.kinds import VERSION_1
from pyvirt.virtio.records import Lost, TracedQueue
from pyvirt.virtio.trace import Trace

NOW = 1_700_000_000_123_456_789
LEGACY = TracedQueue("net1", "virtio-net", "/machine/peripheral/net1", 1, 0)
CONTROL = TracedQueue("net0", "virtio-net", "/machine/peripheral/net0", 2, VERSION_1 | 1 << 17)


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each block, as the draft has them."""
    while data:
        kind, size = struct.unpack_from("<II", data)
        assert size % 4 == 0
        assert struct.unpack_from("<I", data, size - 4) == (size,)
        yield kind, data[8 : size - 4]
        data = data[size:]


def options(data: bytes) -> dict[int, bytes]:
    found = {}
    while True:
        code, size = struct.unpack_from("<HH", data)
        if code == 0:
            assert data == bytes(4)
            return found
        found[code] = data[4 : 4 + size]
        data = data[4 + size + -size % 4 :]


def parsed(data: bytes) -> dict[str, Any]:
    """Interfaces, packets and statistics."""
    (section, head), *rest = blocks(data)
    assert (section, head[:16]) == (0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    found: dict[str, Any] = {"interfaces": [], "packets": [], "statistics": []}
    for kind, body in rest:
        if kind == 1:
            assert struct.unpack_from("<HHI", body) == (1, 0, 0)
            told = options(body[8:])
            assert told[9] == b"\x09"
            found["interfaces"].append(told[2].decode())
        elif kind == 6:
            card, high, low, kept, length = struct.unpack_from("<5I", body)
            told = options(body[20 + kept + -kept % 4 :])
            (flags,) = struct.unpack("<I", told[2])
            found["packets"].append((card, high << 32 | low, flags, body[20 : 20 + kept], length))
        else:
            assert kind == 5
            card, high, low = struct.unpack_from("<III", body)
            found["statistics"].append((card, high << 32 | low, options(body[12:])))
    return found


def exported(found: Trace) -> tuple[int, dict[str, Any]]:
    file = io.BytesIO()
    count = found.pcapng(file)
    return count, parsed(file.getvalue())


def frame(size: int, fill: bytes = b"\x11") -> bytes:
    return bytes.fromhex("525400123456525400abcdef88b5").ljust(size, fill)


HEADER = bytes(12)
LAST = bytes(10) + b"\1\0"


def example() -> Trace:
    return trace(
        [
            Made(0, 100, 900, b"", LAST + frame(60), writable_length=2048, written=72),
            Made(1, 500, 700, HEADER + frame(42)),
            Made(2, 300, 0, bytes(10) + frame(64), readable_length=10 + 1514),
            Made(3, 50, 60, blk(0, 1), writable_length=513),
            Made(0, 400, 0, b"", writable_length=2048),
        ],
        [RX, TX, LEGACY, DISK],
        started=10,
        ended=1000,
        realtime=NOW,
        lost=Lost(2, 0, 3),
    )


def test_each_frame_is_a_packet_of_its_card() -> None:
    count, found = exported(example())
    assert count == 3
    assert found["interfaces"] == ["net0", "net1"]
    assert found["packets"] == [
        (1, NOW + 300, 2, frame(64), 1514),
        (0, NOW + 500, 2, frame(42), 42),
        (0, NOW + 900, 1, frame(60), 60),
    ]


def test_what_was_lost_stands_at_the_end() -> None:
    _, found = exported(example())
    for (card, time, told), number in zip(found["statistics"], (2, 1), strict=True):
        assert time == NOW + 1000
        assert struct.unpack("<Q", told[4]) == (number,)
        assert struct.unpack("<Q", told[5]) == (5,)
        assert told[1] == b"of all traced queues together: 2 requests missed, 0 uncertain, " \
                          b"3 dropped"  # fmt: skip
        assert card in (0, 1)


def test_a_frame_in_several_buffers_is_one_packet() -> None:
    found = trace(
        [
            Made(0, 1, 9, b"", bytes(10) + b"\2\0" + frame(1488, b"a"), order=0),
            Made(0, 2, 10, b"", b"b" * 900, writable_length=1500, written=900, order=1),
        ],
        [RX],
    )
    count, told = exported(found)
    assert (count, told["packets"]) == (1, [(0, 10, 1, frame(1488, b"a") + b"b" * 900, 2388)])


def test_a_frame_is_cut_where_its_first_buffer_was() -> None:
    found = trace(
        [
            Made(0, 1, 9, b"", LAST[:10] + b"\2\0" + frame(64), writable_length=1500, order=0),
            Made(0, 2, 10, b"", b"b" * 20, writable_length=1500, written=900, order=1),
        ],
        [RX],
    )
    _, told = exported(found)
    assert told["packets"] == [(0, 10, 1, frame(64), 1488 + 900)]


def test_control_is_no_frame_and_what_cannot_be_read_is_counted() -> None:
    found = trace(
        [
            Made(0, 1, 9, b"\0\0\1", b"\0"),
            Made(1, 2, 10, b"short"),
        ],
        [CONTROL, TX],
    )
    count, told = exported(found)
    assert (count, told["packets"]) == (0, [])
    (_, _, statistics) = told["statistics"][0]
    assert struct.unpack("<Q", statistics[5]) == (1,)


FRAMES = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(1, 1 << 40), st.integers(1, 1 << 30),
        st.binary(min_size=14, max_size=80), st.integers(0, 3000),
    )
)  # fmt: skip


@given(FRAMES, st.integers(0, 1 << 62))
def test_all_frames_are_read_back(frames: list[tuple[int, int, int, bytes, int]], now: int) -> None:
    queues = [RX, TX, LEGACY]
    requests, expected = [], []
    for queue, made, took, data, more in frames:
        head = (LAST, HEADER, bytes(10))[queue]
        length = len(data) + more
        if queue == 0:
            requests.append(
                Made(0, made, made + took, b"", head + data, writable_length=length + 12)
            )
        else:
            requests.append(
                Made(queue, made, made + took, head + data, readable_length=length + len(head))
            )
        time = now + made + (took if queue == 0 else 0)
        expected.append((int(queue == 2), time, 1 if queue == 0 else 2, data, length))
    count, found = exported(trace(requests, queues, realtime=now))
    assert count == len(frames)
    assert sorted(found["packets"]) == sorted(expected)
    assert [packet[1] for packet in found["packets"]] == sorted(time for _, time, *_ in expected)


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_reads_the_file(tmp_path: Path) -> None:
    ping = bytes.fromhex(
        "525400123456525400abcdef0800450000541c4640004001060c0a00020f0a000202080077ce00010001"
    ) + bytes(56)
    requests = [
        Made(1, 500, 700, HEADER + ping),
        Made(1, 600, 700, HEADER + ping[:50], readable_length=12 + len(ping)),
        Made(0, 100, 900, b"", LAST + frame(60), writable_length=2048, written=72),
    ]
    file = tmp_path / "net.pcapng"
    found = trace(requests, [RX, TX, LEGACY], realtime=NOW, ended=10**9, lost=Lost(1, 0, 0))
    assert found.pcapng(file) == 3
    fields = ("frame.time_epoch", "frame.interface_name", "frame.packet_flags_direction",
              "frame.cap_len", "frame.len", "ip.dst", "icmp.type")  # fmt: skip
    wanted = [word for field in fields for word in ("-e", field)]
    command = ["tshark", "-r", str(file), "-T", "fields", *wanted]
    said = subprocess.run(command, capture_output=True, text=True, timeout=110, check=True)
    assert [line.split("\t") for line in said.stdout.splitlines()] == [
        ["1700000000.123457289", "net0", "0x00000002", "98", "98", "10.0.2.2", "8"],
        ["1700000000.123457389", "net0", "0x00000002", "50", "98", "10.0.2.2", "8"],
        ["1700000000.123457689", "net0", "0x00000001", "60", "60", "", ""],
    ]
    assert "malformed" not in said.stderr.lower()
    assert "damaged" not in said.stderr.lower()


@pytest.mark.skipif(shutil.which("capinfos") is None, reason="capinfos is not installed")
def test_wireshark_knows_the_interfaces(tmp_path: Path) -> None:
    file = tmp_path / "net.pcapng"
    example().pcapng(str(file))
    said = subprocess.run(["capinfos", str(file)], capture_output=True, text=True, timeout=110)
    assert said.returncode == 0, said.stderr
    assert "Wireshark/... - pcapng" in said.stdout
    assert "Name = net0" in said.stdout
    assert "Name = net1" in said.stdout
    assert "Time precision = nanoseconds (9)" in said.stdout
