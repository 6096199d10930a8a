from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qmp_peers import DONE, GREETING, STOP
from reference_qmp import messages

from pyvirt.errors import CommandError, ProtocolError, PyvirtError, SpecError
from pyvirt.qmp.event import Event
from pyvirt.qmp.protocol import Answer, Greeting, Protocol, encode

REFUSAL = b'{"error": {"class": "GenericError", "desc": "gr\xc3\xbc\xc3\x9fe"}}\r\n'
OUT_OF_PLACE = "sent a byte that no QMP message has there"
PRETTY = b'{\n    "return": [\n        {"a": "}\\"{"}, null\n    ]\n}\r\n'
STREAM = GREETING + DONE + STOP + REFUSAL + PRETTY


def plain(message):
    """A message as the reference sees it."""
    match message:
        case Greeting():
            return "greeting"
        case Event():
            return ("event", message.name, message.data)
        case Answer(error=None):
            return ("return", message.value)
        case Answer():
            return ("error", message.error.kind, message.error.desc)


def expected(stream):
    for kind, content in messages(stream):
        match kind:
            case "greeting":
                yield "greeting"
            case "event":
                yield ("event", content["event"], content.get("data", {}))
            case "return":
                yield ("return", content["return"])
            case "error":
                yield ("error", content["error"]["class"], content["error"]["desc"])


def reader(expecting=0, **limits):
    protocol = Protocol(**limits)
    protocol.want(None)
    for number in range(expecting):
        protocol.expect(number, f"command{number}")
    return protocol


def read(stream, piece, expecting=3):
    protocol = reader(expecting)
    found = []
    for at in range(0, len(stream), piece):
        found += protocol.feed(stream[at : at + piece])
    return [plain(message) for message in found]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, len(STREAM)])
def test_a_stream_means_the_same_however_it_is_cut(piece):
    assert read(STREAM, piece) == list(expected(STREAM))
    assert len(read(STREAM, piece)) == 5


def test_a_stream_cut_at_every_length_gives_what_is_whole():
    for end in range(len(STREAM)):
        protocol = reader(3)
        found = list(protocol.feed(STREAM[:end]))
        assert [plain(message) for message in found] == list(expected(STREAM[:end]))
        rest = list(protocol.feed(STREAM[end:]))
        assert len(found) + len(rest) == 5


def test_replies_come_in_order_and_carry_their_tickets():
    protocol = reader(2)
    first, second = protocol.feed(DONE + REFUSAL)
    assert (first.ticket, first.value, first.error) == (0, {}, None)
    assert (second.ticket, second.error.command) == (1, "command1")
    assert str(second.error) == "command1: grüße (GenericError)"
    assert isinstance(second.error, CommandError)


def test_an_out_of_band_reply_overtakes():
    protocol = reader(1)
    protocol.expect("fast", "query-yank", oob=5)
    fast, slow = protocol.feed(b'{"return": [], "id": 5}' + DONE)
    assert (fast.ticket, slow.ticket) == ("fast", 0)


def test_a_raw_value_is_not_decoded():
    protocol = Protocol()
    protocol.expect(None, "query-qmp-schema", raw=True)
    (answer,) = protocol.feed(b'{"return": [1,  2]}\r\n')
    assert answer.value.strip() == b"[1,  2]"


def test_unwanted_events_are_counted_and_wanted_ones_decoded():
    protocol = Protocol()
    assert list(protocol.feed(STOP * 3)) == []
    protocol.want(["RESUME", "STOP"])
    (event,) = protocol.feed(STOP)
    assert (event.name, event.data, event.time) == ("STOP", {}, 1.5)
    protocol.want(["RESUME", "STO", "STOPP"])
    assert list(protocol.feed(STOP)) == []
    assert protocol.unwanted == 4


def test_what_was_never_answered_can_be_taken_back():
    protocol = reader(3)
    protocol.expect("oob", "yank", oob=1)
    list(protocol.feed(DONE))
    assert protocol.abandon() == [1, 2, "oob"]
    assert protocol.abandon() == []


@pytest.mark.parametrize(
    ("stream", "reason", "offset"),
    [
        pytest.param(DONE + b"hello", OUT_OF_PLACE, 16, id="garbage"),
        pytest.param(b'{"return": {]', OUT_OF_PLACE, 12, id="brackets"),
        pytest.param(b'{"return": ' + b"[" * 2000, "nested a message deeper than allowed", 1034,
                     id="nested"),
        pytest.param(b'{"return": "' + b"x" * 5000, "sent a message longer than allowed", 4096,
                     id="long"),
        pytest.param(b'{"return": "\xff"}', "sent bytes that are not UTF-8", 12, id="utf8"),
        pytest.param(b'{"return": "\xed\xa0\x80"}', "sent bytes that are not UTF-8", 12,
                     id="surrogate"),
        pytest.param(b'{"hello": 1}', "sent an object that is neither greeting, reply nor event", 0,
                     id="kind"),
        pytest.param(DONE + b'{"return": 1, "id": 9}', "answered with the unknown id 9", 16,
                     id="id"),
        pytest.param(DONE + b'{"return": 1, "id": {"a": 1}}',
                     "answered with the unknown id {'a': 1}", 16, id="id-object"),
        pytest.param(DONE * 2 + DONE, "answered a command that was never sent", 32, id="unasked"),
        pytest.param(GREETING * 2, "greeted twice", len(GREETING), id="greeting"),
    ],
)  # fmt: skip
def test_a_broken_peer_is_told_apart_and_where(stream, reason, offset):
    protocol = reader(2, size=4096)
    with pytest.raises(ProtocolError) as caught:
        list(protocol.feed(stream))
    assert (caught.value.peer, caught.value.reason) == ("QEMU", reason)
    assert str(caught.value) == f"QEMU {reason} at byte {offset}"
    assert caught.value.offset == offset


def test_messages_before_a_fault_are_still_handed_out():
    found = reader(2).feed(DONE + STOP + b"}")
    assert [plain(next(found)), plain(next(found))] == [("return", {}), ("event", "STOP", {})]
    with pytest.raises(ProtocolError) as caught:
        next(found)
    assert caught.value.offset == len(DONE + STOP)


def test_values_that_are_not_json_are_refused():
    with pytest.raises(ProtocolError, match=r"sent a message that cannot be read"):
        list(reader(1).feed(b'{"return": [1 2]}'))
    with pytest.raises(ProtocolError, match=r"sent a message that cannot be read"):
        list(reader(1).feed(b'{"error": {"class": 1}}'))
    with pytest.raises(ProtocolError, match=r"sent a message that cannot be read"):
        list(reader(1).feed(b'{"event": 1}'))


def test_a_reply_larger_than_the_buffer_is_whole_and_memory_shrinks_again():
    protocol = reader(2)
    text = "é" * 3_000_000
    (answer,) = protocol.feed(json.dumps({"return": text}, ensure_ascii=False).encode())
    assert answer.value == text
    assert len(protocol._buffer) <= 1 << 16
    (answer,) = protocol.feed(DONE)
    assert answer.value == {}


def test_an_event_is_short():
    protocol = reader()
    with pytest.raises(ProtocolError, match="QEMU sent an event longer than allowed at byte 0"):
        list(protocol.feed(STOP[:-3] + b', "data": {"x": "' + b"y" * (1 << 16) + b'"}}'))


def test_an_endless_line_takes_no_more_memory_than_allowed():
    protocol = reader(1, size=1 << 20)
    line = b'{"return": "' + b"x" * (100 << 20)
    with pytest.raises(ProtocolError) as caught:
        list(protocol.feed(line))
    assert caught.value.offset == 1 << 20
    assert len(protocol._buffer) <= 2 << 20


def outcome(protocol, data, piece=1 << 20):
    """All messages of `data`, or where it is broken."""
    try:
        found = [m for at in range(0, len(data), piece) for m in protocol.feed(data[at:][:piece])]
    except ProtocolError as error:
        return error
    return found


@given(st.binary(max_size=300), st.integers(1, 40))
def test_any_bytes_are_read_or_refused(data, piece):
    found = outcome(reader(3), data, piece)
    assert isinstance(found, list) or 0 <= found.offset <= len(data)


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_stream_gives_messages_or_its_own_error(data):
    stream = bytearray(STREAM)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(stream) - 1))
        stream[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    found = outcome(reader(3), bytes(stream))
    if isinstance(found, list):
        assert all(isinstance(message, (Greeting, Answer, Event)) for message in found)
    else:
        assert 0 <= found.offset <= len(stream)


utf8 = st.characters(codec="utf-8")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(utf8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(utf8, max_size=8), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(json_values, st.sampled_from([None, 1, "\t"]), st.booleans(), st.integers(1, 64))
def test_every_value_arrives_as_the_standard_library_reads_it(value, indent, ascii_only, piece):
    stream = json.dumps({"return": value}, indent=indent, ensure_ascii=ascii_only).encode()
    protocol, found = reader(1), []
    for at in range(0, len(stream), piece):
        found += protocol.feed(stream[at : at + piece])
    assert [message.value for message in found] == [value]


@given(st.dictionaries(st.text(utf8, min_size=1), json_values, min_size=1))
def test_commands_are_json_in_the_fewest_bytes(arguments):
    data = encode("x-command", arguments)
    assert json.loads(data) == {"execute": "x-command", "arguments": arguments}
    assert len(data) <= len(
        json.dumps(json.loads(data), separators=(",", ":"), ensure_ascii=False).encode()
    )


def test_commands_are_as_short_as_they_can_be():
    assert encode("query-status") == b'{"execute":"query-status"}'
    assert encode("stop", {}) == b'{"execute":"stop"}'
    assert encode("yank", None, 3) == b'{"exec-oob":"yank","id":3}'
    assert encode("a", {"path": Path("/x")}) == b'{"execute":"a","arguments":{"path":"/x"}}'


@pytest.mark.parametrize("value", [object(), "\ud800", {1, 2}.__iter__()])
def test_arguments_that_are_not_json_are_refused_before_sending(value):
    with pytest.raises(SpecError) as caught:
        encode("stop", {"a": value})
    assert caught.value.field == "stop arguments"
    assert isinstance(caught.value, PyvirtError)


def test_limits_are_checked():
    with pytest.raises(SpecError, match="size must be between 64 bytes and 1 GiB, got 1"):
        Protocol(size=1)
    with pytest.raises(SpecError, match="depth must be between 1 and 1024, got 1025"):
        Protocol(depth=1025)
