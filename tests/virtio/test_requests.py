"""Requests decoded from literal bytes; cut everywhere; made of anything."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.traces import blk

from pyvirt.virtio.captured import Captured
from pyvirt.virtio.kinds import VERSION_1
from pyvirt.virtio.requests import (
    BalloonRequest,
    BlkRange,
    BlkRequest,
    ConsoleData,
    ControlRequest,
    NetFrame,
    Request,
    RngRequest,
    ScsiRequest,
    UnknownRequest,
    decode,
)
from pyvirt.virtio.requests.cdb import command
from pyvirt.virtio.requests.frames import frame_summary
from pyvirt.virtio.requests.net import MRG_RXBUF
from pyvirt.virtio.requests.sense import sense

CTRL_VQ, MQ, HASH_REPORT = 1 << 17, 1 << 22, 1 << 57
T10_PI = 1 << 3


def whole(readable: bytes = b"", writable: bytes = b"", **more: Any) -> Captured:
    """A request that is done and was captured completely."""
    facts = {"written": len(writable), "tail": writable[-1] if writable else None, **more}
    return Captured(readable, len(readable), writable, len(writable), **facts)


# virtio-blk


def test_a_read() -> None:
    seen = Captured(blk(0, 8), 16, b"abc", 4097, 4097, 0)
    request = decode("virtio-blk", 1, seen)
    assert isinstance(request, BlkRequest)
    assert (request.operation, request.offset, request.length) == ("read", 4096, 4096)
    assert (request.status, request.data, request.error) == ("ok", b"abc", None)
    assert request.queue.name == "request1"
    assert repr(request) == "<BlkRequest virtio-blk request1: read 4 KiB at 4096, ok>"


def test_a_read_in_flight() -> None:
    request = decode("virtio-blk", 0, Captured(blk(0, 1), 16, b"", 513))
    assert (request.length, request.status, request.data) == (512, None, b"")
    assert str(request) == "read 512 B at 512, in flight"


def test_a_write_whose_data_is_cut() -> None:
    request = decode("virtio-blk", 0, Captured(blk(1, 2, b"x" * 10), 16 + 1024, b"", 1, 1, 1))
    assert (request.operation, request.offset, request.length) == ("write", 1024, 1024)
    assert (request.status, request.data) == ("ioerr", b"x" * 10)


@pytest.mark.parametrize(
    ("number", "name", "status", "said"),
    [(4, "flush", 0, "ok"), (8, "get-id", 0, "ok"), (99, "type-99", 2, "unsupp"),
     (4, "flush", 77, "status-77")],
)  # fmt: skip
def test_types_and_statuses(number: int, name: str, status: int, said: str) -> None:
    request = decode("virtio-blk", 0, whole(blk(number, 0), bytes([status])))
    assert (request.operation, request.status, request.offset is None) == (name, said, number < 9)
    assert (request.error is None) == (number != 99)


def test_a_barrier_of_old_drivers_is_no_type() -> None:
    request = decode("virtio-blk", 0, whole(blk(1 << 31 | 1, 3, bytes(512)), b"\0"))
    assert (request.operation, request.offset, request.error) == ("write", 1536, None)


def test_the_status_is_the_last_byte_where_the_sampler_did_not_tell_it() -> None:
    seen = Captured(blk(8, 0), 16, b"disk-0" + bytes(14) + b"\1", 21, 21, None)
    request = decode("virtio-blk", 0, seen)
    assert isinstance(request, BlkRequest)
    assert (request.status, request.identity, request.length) == ("ioerr", "disk-0", 20)


@pytest.mark.parametrize(
    ("number", "name"), [(11, "discard"), (13, "write-zeroes"), (14, "secure-erase")]
)
def test_ranges(number: int, name: str) -> None:
    ranges = struct.pack("<QIIQII", 8, 16, 1, 100, 1, 0)
    request = decode("virtio-blk", 0, whole(blk(number, 0, ranges), b"\0"))
    assert isinstance(request, BlkRequest)
    assert request.ranges == (BlkRange(4096, 8192, True), BlkRange(51200, 512, False))
    assert (request.operation, request.offset, request.length) == (name, 4096, 8704)


def test_a_range_that_was_not_captured_is_said() -> None:
    ranges = struct.pack("<QIIQII", 8, 16, 1, 100, 1, 0)
    request = decode("virtio-blk", 0, Captured(blk(11, 0, ranges[:20]), 48, b"", 1, 1, 0))
    assert request.error == "1 of its 2 ranges were not captured"
    assert request.length == 8192


@pytest.mark.parametrize(
    ("seen", "error"),
    [
        (whole(b"\0" * 5, b"\0"), "has 5 bytes where its header takes 16"),
        (Captured(b"\0" * 5, 16, b"", 1), "5 of the 16 bytes of its header were captured"),
        (whole(blk(0, 0)), "has no room for its status"),
        (whole(blk(1, 0, b"abc"), b"\0"), "moves 3 bytes, which are no whole sectors"),
        (whole(blk(11, 0, b"abc"), b"\0"), "has 3 bytes of ranges, each of which takes 16"),
    ],
)
def test_what_is_wrong_with_a_block_request(seen: Captured, error: str) -> None:
    assert decode("virtio-blk", 0, seen).error == error


# virtio-net

ETHERNET = bytes.fromhex("525400123456525400abcdef")
PING = bytes.fromhex("0800 45000054000040004001 0000 0a00020f 0a000202 0800")
HEADER = struct.pack("<BBHHHH", 1, 1 | 0x80, 54, 1448, 34, 16)


@pytest.mark.parametrize(
    ("features", "header", "buffers", "value"),
    [
        pytest.param(0, HEADER, None, None, id="legacy"),
        pytest.param(MRG_RXBUF, HEADER + b"\1\0", 1, None, id="legacy-merged"),
        pytest.param(VERSION_1, HEADER + b"\1\0", 1, None, id="modern"),
        pytest.param(
            VERSION_1 | HASH_REPORT, HEADER + struct.pack("<HIHH", 1, 77, 2, 0), 1, 77, id="hash"
        ),
    ],
)
def test_a_frame_and_its_header(
    features: int, header: bytes, buffers: int | None, value: int | None
) -> None:
    frame = ETHERNET + PING
    request = decode("virtio-net", 1, whole(header + frame), features=features)
    assert isinstance(request, NetFrame)
    assert (request.data, request.length, request.operation) == (frame, len(frame), "transmit")
    told = request.header
    assert told is not None
    assert (told.flags, told.gso_type, told.ecn) == (("NEEDS_CSUM",), "TCPV4", True)
    assert (told.hdr_len, told.gso_size, told.csum_start, told.csum_offset) == (54, 1448, 34, 16)
    assert (told.num_buffers, told.hash_value) == (buffers, value)
    assert str(request).startswith("transmit IPv4 10.0.2.15 > 10.0.2.2: ICMP echo request, length")


def test_a_received_frame_that_was_cut() -> None:
    header = bytes(10) + b"\1\0"
    seen = Captured(b"", 0, header + ETHERNET + PING, 2048, 12 + 98, None)
    request = decode("virtio-net", 2, seen, features=VERSION_1)
    assert isinstance(request, NetFrame)
    assert (request.operation, request.length, request.cut) == ("receive", 98, True)
    assert request.queue.name == "rx1"


def test_an_empty_receive_buffer() -> None:
    request = decode("virtio-net", 0, Captured(b"", 0, b"", 2048))
    assert isinstance(request, NetFrame)
    assert (request.header, request.length, request.error) == (None, 0, None)
    assert str(request) == "receive buffer, in flight"


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (ETHERNET + PING, "IPv4 10.0.2.15 > 10.0.2.2: ICMP echo request"),
        (ETHERNET + bytes.fromhex("8100000a") + PING,
         "vlan 10 IPv4 10.0.2.15 > 10.0.2.2: ICMP echo request"),
        (ETHERNET + bytes.fromhex("0806 0001080006040001 525400abcdef 0a00020f 000000000000"
                                  "0a000202"), "ARP who-has 10.0.2.2 tell 10.0.2.15"),
        (ETHERNET + bytes.fromhex("0806 0001080006040002 525400abcdef 0a00020f 000000000000"
                                  "0a000202"), "ARP 10.0.2.15 is-at 52:54:00:ab:cd:ef"),
        (ETHERNET + bytes.fromhex("0800 45000028000040004006 0000 0a00020f 0a000202 9c40 0050"
                                  "00000000 00000000 5012"),
         "IPv4 10.0.2.15.40000 > 10.0.2.2.80: TCP [S.]"),
        (ETHERNET + bytes.fromhex("0800 45000028000000b94011 0000 0a00020f 0a000202 9c40 0050"),
         "IPv4 10.0.2.15 > 10.0.2.2: UDP fragment"),
        (ETHERNET + bytes.fromhex("86dd 60000000 0020 00 ff" + "fe80" + "00" * 13 + "01" + "ff02"
                                  + "00" * 13 + "02" + "3a00 0502 0000 0100" + "8700"),
         "IPv6 fe80::1 > ff02::2: ICMPv6 neighbor solicitation"),
        (ETHERNET + b"\x88\xcc", "52:54:00:ab:cd:ef > 52:54:00:12:34:56: LLDP"),
        (ETHERNET + b"\x08\x00\x45", "52:54:00:ab:cd:ef > 52:54:00:12:34:56: IPv4"),
        (ETHERNET, "cut frame"),
    ],
)  # fmt: skip
def test_frames_in_one_line(frame: bytes, said: str) -> None:
    assert frame_summary(frame) == said


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b"\0\0\1", "RX PROMISC on=True, ok"),
        (b"\1\1\x52\x54\0\1\2\3", "MAC ADDR_SET mac=52:54:00:01:02:03, ok"),
        (b"\1\0" + struct.pack("<I", 1) + b"abcdef" + struct.pack("<I", 0),
         "MAC TABLE_SET unicast=('61:62:63:64:65:66',) multicast=(), ok"),
        (b"\2\0\x0a\0", "VLAN ADD vlan=10, ok"),
        (b"\3\0", "ANNOUNCE ACK, ok"),
        (b"\4\0\2\0", "MQ VQ_PAIRS_SET pairs=2, ok"),
        (b"\5\0" + struct.pack("<Q", 0b10),
         "GUEST_OFFLOADS SET offloads=('GUEST_CSUM',), ok"),
        (b"\6\1" + struct.pack("<II", 10, 50), "NOTF_COAL RX_SET packets=10 seconds=5e-05, ok"),
        (b"\4\1\0\0", "MQ RSS_CONFIG, ok"),
        (b"\x09\1", "class-9 command-1, ok, error: class-9 command-1 is not known"),
        (b"\2\0\x0a", "VLAN ADD, ok, error: 1 bytes are too few for what VLAN ADD says"),
        (b"\1\0" + struct.pack("<I", 9), "MAC TABLE_SET, ok, error: 4 bytes are too few for what "
                                         "MAC TABLE_SET says"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("features", [CTRL_VQ, CTRL_VQ | MQ])
def test_control_of_a_network_card(message: bytes, said: str, features: int) -> None:
    request = decode("virtio-net", 2, whole(message, b"\0"), features=features)
    assert isinstance(request, ControlRequest)
    assert str(request) == said


# virtio-scsi

LUN = b"\1\2\x40\3" + bytes(4)


def cdb(*octets: int) -> bytes:
    return bytes(octets).ljust(32, b"\0")


def scsi(block: bytes, data: bytes = b"", lun: bytes = LUN, extra: bytes = b"") -> bytes:
    return lun + struct.pack("<QBBB", 7, 0, 0, 0) + extra + block + data


def answer(status: int = 0, response: int = 0, sense: bytes = b"", residual: int = 0) -> bytes:
    head = struct.pack("<IIHBB", len(sense), residual, 0, status, response)
    return head + sense.ljust(96, b"\0")


READ_10 = cdb(0x28, 0, 0, 0, 1, 0, 0, 0, 8)


def test_a_read_of_a_scsi_disk() -> None:
    seen = Captured(scsi(READ_10), 51, answer() + b"data", 108 + 4096, 108 + 4096, None)
    request = decode("virtio-scsi", 2, seen)
    assert isinstance(request, ScsiRequest)
    assert (request.operation, request.offset, request.length) == ("read", 256 * 512, 4096)
    assert (request.lun.target, request.lun.lun, request.tag) == (2, 3, 7)
    assert (request.command.lba, request.command.blocks, request.block_size) == (256, 8, 512)
    assert (request.status, request.data, request.sense) == ("good", b"data", None)
    assert str(request) == "2:3 READ(10) lba 256 blocks 8, good"


def test_protection_information_moves_the_command() -> None:
    request = decode(
        "virtio-scsi", 2, whole(scsi(READ_10, extra=bytes(8)), answer()), features=T10_PI
    )
    assert isinstance(request, ScsiRequest)
    assert request.command.name == "READ(10)"


def test_a_write_counts_its_data_as_written_in_qemu() -> None:
    block = cdb(0x8A, 0, *(0).to_bytes(7, "big"), 9, *(2).to_bytes(4, "big"))
    seen = Captured(scsi(block, b"abc"), 51 + 8192, answer(), 108, 108 + 8192, None)
    request = decode("virtio-scsi", 3, seen)
    assert (request.operation, request.offset, request.length) == ("write", 9 * 4096, 8192)
    assert (request.data, request.queue.name) == (b"abc", "request1")


FIXED = bytes([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x21, 0])


@pytest.mark.parametrize("data", [FIXED, bytes([0x72, 5, 0x21, 0])])
def test_why_a_command_failed(data: bytes) -> None:
    request = decode("virtio-scsi", 2, whole(scsi(READ_10), answer(2, sense=data, residual=12)))
    assert isinstance(request, ScsiRequest)
    assert str(request.sense) == "ILLEGAL REQUEST: LBA out of range"
    assert (request.status, request.residual) == ("check-condition", 12)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", None), (b"\x70\0", None), (b"\x01\2\3\4\5", None),
        (b"\x70\0\6", "UNIT ATTENTION: no additional sense information"),
        (bytes([0x72, 3, 0x77, 0x12]), "MEDIUM ERROR: 0x77/0x12"),
    ],
)  # fmt: skip
def test_sense_data(data: bytes, said: str | None) -> None:
    found = sense(data)
    assert (found and str(found)) == said


def test_a_target_that_is_not_there() -> None:
    request = decode("virtio-scsi", 2, whole(scsi(READ_10), answer(response=3)))
    assert request.status == "bad-target"


def test_unmap() -> None:
    table = struct.pack(">QI4xQI4x", 100, 8, 200, 16)
    data = struct.pack(">HH4x", len(table) + 6, len(table)) + table
    request = decode("virtio-scsi", 2, whole(scsi(cdb(0x42), data), answer()))
    assert isinstance(request, ScsiRequest)
    assert request.unmaps == ((100, 8), (200, 16))
    assert str(request) == "2:3 UNMAP lba 100 blocks 8 lba 200 blocks 16, good"
    cut = Captured(scsi(cdb(0x42), data[:30]), 51 + len(data), answer(), 108, 108, None)
    assert decode("virtio-scsi", 2, cut).error == "1 of its 2 ranges were not captured"


@pytest.mark.parametrize(
    ("block", "name", "lba", "blocks", "transfer", "page"),
    [
        (cdb(0x00), "TEST UNIT READY", None, None, None, ""),
        (cdb(0x08, 0xFF, 0, 1, 0), "READ(6)", 0x1F0001, 256, None, ""),
        (cdb(0x0A, 0, 0, 9, 4), "WRITE(6)", 9, 4, None, ""),
        (cdb(0x12, 0, 0, 1, 4), "INQUIRY", None, None, 260, "standard"),
        (cdb(0x12, 1, 0xB0, 0, 64), "INQUIRY", None, None, 64, "EVPD block limits"),
        (cdb(0x1A, 0, 0x3F, 0, 192), "MODE SENSE(6)", None, None, 192, "all pages"),
        (cdb(0x5A, 0, 8, 0, 0, 0, 0, 1, 0), "MODE SENSE(10)", None, None, 256, "page 0x08"),
        (cdb(0x25), "READ CAPACITY(10)", None, None, None, ""),
        (cdb(0x35, 0, 0, 0, 0, 5, 0, 0, 6), "SYNCHRONIZE CACHE(10)", 5, 6, None, ""),
        (cdb(0x93, 8, *bytes(7), 3, 0, 0, 1, 0), "WRITE SAME(16)", 3, 256, None, ""),
        (cdb(0x9E, 0x10, *bytes(8), 0, 0, 0, 32), "READ CAPACITY(16)", None, None, 32, ""),
        (cdb(0xA0, 0, 0, 0, 0, 0, 0, 0, 16, 0), "REPORT LUNS", None, None, 4096, ""),
        (cdb(0xA8, 0, 0, 0, 0, 7, 0, 0, 0, 2), "READ(12)", 7, 2, None, ""),
        (cdb(0xAA, 0, 0, 0, 0, 7, 0, 1, 0, 0), "WRITE(12)", 7, 65536, None, ""),
        (cdb(0x88, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3), "READ(16)", 1 << 32, 3, None, ""),
        (b"\x7f" + bytes(8) + b"\x09\0\0" + bytes(7) + b"\5" + bytes(11) + b"\2", "READ(32)",
         5, 2, None, ""),
        (cdb(0xFF), "opcode 0xff", None, None, None, ""),
        (b"", "TEST UNIT READY", None, None, None, ""),
    ],
)  # fmt: skip
def test_commands(
    block: bytes, name: str, lba: int | None, blocks: int | None, transfer: int | None, page: str
) -> None:
    told = command(block)
    assert (told.name, told.lba, told.blocks) == (name, lba, blocks)
    assert (told.transfer, told.page, told.unmap) == (transfer, page, block[:2] == b"\x93\x08")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (LUN, "2:3"), (b"\1\0\0\1" + bytes(4), "0:1"), (b"\1\5\x7f\xff" + bytes(4), "5:16383"),
        (b"\xc1\1" + bytes(6), "report-luns"), (b"\2" + bytes(7), "0200000000000000"),
    ],
)  # fmt: skip
def test_units(address: bytes, said: str) -> None:
    request = decode("virtio-scsi", 2, whole(scsi(READ_10, lun=address), answer()))
    assert isinstance(request, ScsiRequest)
    assert str(request.lun) == said


def test_task_management() -> None:
    message = struct.pack("<II8sQ", 0, 5, LUN, 9)
    request = decode("virtio-scsi", 0, whole(message, b"\0"))
    assert str(request) == "TMF LOGICAL_UNIT_RESET lun=2:3 tag=9, complete"
    request = decode("virtio-scsi", 0, whole(struct.pack("<I8sI", 2, LUN, 4), bytes(4) + b"\x0b"))
    assert str(request) == "AN_SUBSCRIBE lun=2:3 events=4, rejected"


def test_events_of_scsi() -> None:
    message = struct.pack("<I8sI", 1 << 31 | 1, LUN, 1)
    request = decode("virtio-scsi", 1, whole(b"", message))
    assert str(request) == "TRANSPORT_RESET lun=2:3 reason=1 missed=True"
    assert str(decode("virtio-scsi", 1, Captured(b"", 0, b"", 16))) == "receive, in flight"


# The others


def test_data_of_ports() -> None:
    sent = decode("virtio-console", 1, Captured(b"hello", 9, b"", 0, 0, None))
    assert isinstance(sent, ConsoleData)
    assert (sent.port, sent.operation, sent.length, sent.data) == (0, "transmit", 9, b"hello")
    got = decode("virtio-serial", 4, Captured(b"", 0, b"answer...", 4096, 6, None))
    assert isinstance(got, ConsoleData)
    assert (got.port, got.operation, got.length, got.data) == (1, "receive", 6, b"answer")
    assert str(got) == "port 1 receive 6 B b'answer'"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (struct.pack("<IHH", 1, 3, 1), "PORT_READY port=1 value=1"),
        (struct.pack("<IHH", 1, 7, 1) + b"org.qemu\0", "PORT_NAME port=1 value=1 name=org.qemu"),
        (struct.pack("<IHHHH", 0, 5, 0, 80, 25), "RESIZE port=0 value=0 columns=80 rows=25"),
        (struct.pack("<IHH", 1, 99, 1), "event-99 port=1 value=1, error: event 99 is not known"),
    ],
)
def test_control_of_ports(message: bytes, said: str) -> None:
    assert str(decode("virtio-serial", 3, whole(message))) == said
    assert str(decode("virtio-serial", 2, whole(b"", message))) == said


def test_random_bytes() -> None:
    request = decode("virtio-rng", 0, Captured(b"", 0, b"12345678", 64, 4, None))
    assert isinstance(request, RngRequest)
    assert (request.length, request.data) == (4, b"1234")
    assert decode("virtio-rng", 0, Captured(b"", 0, b"", 64)).length == 64


def test_pages_of_a_balloon() -> None:
    request = decode("virtio-balloon", 0, whole(struct.pack("<3I", 1, 2, 77)))
    assert isinstance(request, BalloonRequest)
    assert (request.operation, request.pages, request.length) == ("inflate", (1, 2, 77), 12288)
    cut = decode("virtio-balloon", 1, Captured(struct.pack("<2I", 1, 2), 12, b"", 0, 0, None))
    assert (cut.operation, cut.length) == ("deflate", 12288)
    assert cut.error == "1 of its 3 pages were not captured"


def test_statistics_of_a_balloon() -> None:
    seen = whole(struct.pack("<HQ", 4, 1 << 20) + struct.pack("<HQ", 200, 5))
    request = decode("virtio-balloon", 2, seen, features=0b10)
    assert isinstance(request, BalloonRequest)
    assert request.statistics == (("free-memory", 1 << 20), ("tag-200", 5))
    assert str(request) == "stats free-memory=1048576 tag-200=5"


def test_pages_that_are_reported_free() -> None:
    seen = Captured(b"", 0, b"", 4 << 20, 0, None)
    assert str(decode("virtio-balloon", 2, seen, features=1 << 5)) == "reporting 4 MiB"


@pytest.mark.parametrize("device", ["virtio-fs", "virtio-9p", "virtio-gpu", "virtio-input",
                                    "virtio-crypto", "virtio-of-tomorrow"])  # fmt: skip
def test_other_devices_are_bytes(device: str) -> None:
    request = decode(device, 0, whole(b"abc", b"de"))
    assert isinstance(request, UnknownRequest)
    assert (request.error, request.captured.readable, request.kind) == (None, b"abc", device)
    assert str(request) == "3 bytes out, 2 in"


# Whatever is in the bytes

DEVICES = ["virtio-blk", "virtio-net", "virtio-scsi", "virtio-serial", "virtio-rng",
           "virtio-balloon", "virtio-fs", "nothing"]  # fmt: skip
LENGTHS = st.integers(0, (1 << 32) - 1)


@st.composite
def anything(draw: st.DrawFn) -> Captured:
    readable, writable = draw(st.binary(max_size=200)), draw(st.binary(max_size=200))
    done = draw(st.booleans())
    return Captured(
        readable,
        draw(st.one_of(st.just(len(readable)), LENGTHS)),
        writable if done else b"",
        draw(st.one_of(st.just(len(writable)), LENGTHS)),
        draw(st.one_of(st.just(len(writable)), LENGTHS)) if done else None,
        draw(st.one_of(st.none(), st.integers(0, 255))) if done else None,
    )


def check(request: Request) -> None:
    assert isinstance(request, Request)
    assert repr(request).startswith(f"<{type(request).__name__} ")
    assert request.length >= 0
    assert request.offset is None or request.offset >= 0


@given(st.sampled_from(DEVICES), st.integers(0, 70), anything(), st.integers(0, (1 << 64) - 1),
       st.integers(0, 70))  # fmt: skip
def test_anything_is_a_request(
    device: str, queue: int, seen: Captured, features: int, queues: int
) -> None:
    check(decode(device, queue, seen, features=features, queues=queues))


@given(st.binary(max_size=120))
def test_any_frame_has_a_line(data: bytes) -> None:
    assert frame_summary(ETHERNET + data)
    for ether_type in (b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00"):
        assert frame_summary(ETHERNET + ether_type + data)


WHOLE = [
    ("virtio-blk", 0, whole(blk(11, 0, bytes(48)), b"\0")),
    ("virtio-blk", 0, whole(blk(0, 8), bytes(513))),
    ("virtio-net", 0, whole(b"", bytes(12) + ETHERNET + PING)),
    ("virtio-net", 1, whole(bytes(12) + ETHERNET + PING)),
    ("virtio-net", 2, whole(b"\1\0" + struct.pack("<I", 1) + b"abcdef" + bytes(4), b"\0")),
    ("virtio-scsi", 0, whole(struct.pack("<II8sQ", 0, 5, LUN, 9), b"\0")),
    ("virtio-scsi", 1, whole(b"", struct.pack("<I8sI", 1, LUN, 1))),
    ("virtio-scsi", 2, whole(scsi(cdb(0x42), bytes(40)), answer(2, sense=FIXED))),
    ("virtio-serial", 3, whole(struct.pack("<IHH", 1, 7, 1) + b"name")),
    ("virtio-balloon", 0, whole(bytes(16))),
    ("virtio-balloon", 2, whole(bytes(30))),
]


@pytest.mark.parametrize(("device", "queue", "seen"), WHOLE)
def test_a_request_cut_at_every_byte_is_a_request(device: str, queue: int, seen: Captured) -> None:
    features = VERSION_1 | CTRL_VQ | 0b10
    for size in range(len(seen.readable) + 1):
        part = seen.readable[:size]
        for length in (size, seen.readable_length):  # cut by the guest, cut by the sampler
            check(decode(device, queue, Captured(
                part, length, seen.writable, seen.writable_length, seen.written, seen.tail
            ), features=features))  # fmt: skip
    for size in range(len(seen.writable) + 1):
        part = seen.writable[:size]
        for length in (size, seen.writable_length):
            check(decode(device, queue, Captured(
                seen.readable, seen.readable_length, part, length, length, None
            ), features=features))  # fmt: skip
