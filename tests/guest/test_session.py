"""The host's side of the protocol against a guest that is a few lines of this file."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import ClosedError, GuestError, ProtocolError, SpecError
from pyvirt.guest import protocol
from pyvirt.guest.process import Exit
from pyvirt.guest.protocol import PREAMBLE, Decoder, Kind, Tag
from pyvirt.guest.session import WINDOW, Handler, Session

NONCE = b"12345678"


class Log(Handler):
    """Remembers what happened."""

    def __init__(self):
        self.seen = []

    def started(self, pid):
        self.seen.append(("started", pid))

    def data(self, channel, data):
        self.seen.append((channel, data))

    def eof(self, channel):
        self.seen.append(("eof", channel))

    def exited(self, exit):
        self.seen.append(exit)

    def over(self):
        self.seen.append("over")

    def lost(self, error):
        self.seen.append(error)


def hello(nonce=NONCE, version=1, window=1000, count=100):
    pairs = [(Tag.VERSION, version), (Tag.NONCE, nonce), (Tag.WINDOW, window)]
    pairs += [(Tag.PID, 1), (Tag.HOSTNAME, "guest"), (Tag.COUNT, count)]
    return PREAMBLE + protocol.encode(Kind.HELLO, 0, 0, protocol.fields(pairs))


def frame(kind, stream=1, channel=0, payload=b"", **fields):
    pairs = [(Tag[name.upper()], value) for name, value in fields.items()]
    return protocol.encode(kind, stream, channel, payload + protocol.fields(pairs))


def greeted(**options):
    session = Session(NONCE)
    session.feed(hello(**options))
    session.take()
    return session


def sent(session):
    """What the session sent since it was last asked."""
    return Decoder().feed(b"".join(session.take()))


def test_nothing_but_the_hello_is_sent_before_its_answer():
    session = Session(NONCE)
    stream = session.open(Kind.EXEC, b"", Log())
    done = stream.send(b"abc")
    assert b"".join(session.take()) == protocol.hello(NONCE, WINDOW)
    session.feed(b"SeaBIOS\r\n" + hello(b"old nonce") + hello(window=2))
    assert session.hello.hostname == "guest"
    assert [(f.kind, f.payload) for f in sent(session)] == [(Kind.EXEC, b""), (Kind.DATA, b"ab")]
    assert not done.done()
    session.feed(frame(Kind.CREDIT, payload=b"\x01\0\0\0"))
    assert [f.payload for f in sent(session)] == [b"c"]
    assert done.done()


def test_another_version_is_refused():
    with pytest.raises(ProtocolError) as caught:
        Session(NONCE).feed(hello(version=9))
    assert "speaks version 9 of its protocol, not 1" in str(caught.value)


def test_life_of_a_command():
    session, log = greeted(), Log()
    session.open(Kind.EXEC, b"", log)
    session.feed(
        frame(Kind.STARTED, pid=42)
        + frame(Kind.DATA, channel=1, payload=b"out")
        + frame(Kind.DATA, channel=2, payload=b"err")
        + frame(Kind.EXITED, exit_code=3, duration=1_500_000_000)
        + frame(Kind.EOF, channel=1)
        + frame(Kind.EOF, channel=2)
        + frame(Kind.END)
    )
    assert log.seen == [
        ("started", 42),
        (1, b"out"),
        (2, b"err"),
        Exit(3, None, 1.5),
        ("eof", 1),
        ("eof", 2),
        "over",
    ]
    assert session.streams == {}


def test_failure_to_start_is_an_error_of_the_guest():
    session, log = greeted(), Log()
    session.open(Kind.EXEC, b"", log)
    session.feed(frame(Kind.FAILED, errno=13, what="/x"))
    (error,) = log.seen
    assert isinstance(error, GuestError)
    assert (error.what, error.errno) == ("/x", 13)
    assert str(error) == "/x failed in the guest: Permission denied"


def test_input_that_nobody_reads_fails_its_writers():
    session, log = greeted(window=1), Log()
    stream = session.open(Kind.EXEC, b"", log)
    waiting = stream.send(b"abc")
    session.feed(frame(Kind.EOF, channel=0))
    for future in (waiting, stream.send(b"more")):
        assert isinstance(future.exception(0), ClosedError)
    assert log.seen == []


def test_end_of_input_goes_behind_what_waits():
    session = greeted(window=1)
    stream = session.open(Kind.EXEC, b"", Log())
    stream.send(b"ab")
    stream.send_end()
    assert [f.kind for f in sent(session)] == [Kind.EXEC, Kind.DATA]
    session.feed(frame(Kind.CREDIT, payload=b"\x09\0\0\0"))
    assert [f.kind for f in sent(session)] == [Kind.DATA, Kind.EOF]


@given(st.lists(st.integers(1, WINDOW // 3), max_size=30))
def test_credit_given_back_lets_any_amount_through(sizes):
    session, log = greeted(), Log()
    stream = session.open(Kind.EXEC, b"", log)
    sent(session)
    granted, total = WINDOW, 0
    for size in sizes:
        size = min(size, granted, protocol.PAYLOAD)
        session.feed(frame(Kind.DATA, channel=1, payload=bytes(size)))
        stream.taken(1, size)
        credit = [f for f in sent(session) if f.kind == Kind.CREDIT]
        granted += sum(int.from_bytes(f.payload, "little") for f in credit) - size
        total += size
        assert granted > WINDOW // 2
    assert sum(len(data) for _, data in log.seen) == total


def data(size):
    return b"".join(
        frame(Kind.DATA, channel=1, payload=bytes(min(size - at, 100_000)))
        for at in range(0, size, 100_000)
    )


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        pytest.param(frame(Kind.DATA, stream=2), "for a stream that is not open", id="unknown"),
        pytest.param(data(WINDOW + 1), "sent more than it was granted", id="flood"),
        pytest.param(
            frame(Kind.EOF, channel=1) + frame(Kind.DATA, channel=1, payload=b"x"),
            "sent more than it was granted",
            id="data-after-its-end",
        ),
        pytest.param(frame(Kind.EOF, channel=1) * 2, "out of order", id="two-ends"),
        pytest.param(frame(Kind.STARTED) * 2, "out of order", id="started-twice"),
        pytest.param(frame(Kind.EXITED, exit_code=0) * 2, "out of order", id="exited-twice"),
        pytest.param(frame(Kind.EXITED), "sent an end that is none", id="no-exit"),
        pytest.param(frame(Kind.EXITED, exit_code=1, signal=2), "that is none", id="both"),
        pytest.param(frame(Kind.END) * 2, "a stream that is not open", id="over-twice"),
        pytest.param(frame(Kind.CREDIT, payload=b"\xff" * 4) * 3, "granted too much", id="credit"),
        pytest.param(frame(Kind.EXEC), "out of order", id="a-request"),
        pytest.param(frame(Kind.HELLO), "out of order", id="a-hello"),
        pytest.param(frame(Kind.PONG, 0, payload=b"x"), "was not sent", id="pong"),
        pytest.param(frame(Kind.STARTED, payload=b"\1"), "cut short", id="cut-field"),
        pytest.param(frame(Kind.STARTED, pid="x"), "number of a wrong size", id="number"),
        pytest.param(b"\0" * 12, "what is no frame", id="no-frame"),
    ],
)
def test_a_guest_that_breaks_the_protocol_is_told_so(what, reason):
    session = greeted()
    session.open(Kind.EXEC, b"", Log())
    with pytest.raises(ProtocolError, match=reason):
        session.feed(what)


@given(st.binary(max_size=300))
def test_any_guest_ends_in_nothing_or_a_protocol_error(junk):
    session = greeted()
    session.open(Kind.EXEC, b"", Log())
    with suppress(ProtocolError):
        session.feed(junk)


def test_empty_data_cannot_pile_up():
    session, log = greeted(), Log()
    session.open(Kind.EXEC, b"", log)
    session.feed(frame(Kind.DATA, channel=1) * 1000)
    assert log.seen == []


def test_end_of_the_connection_fails_everything():
    session, log = greeted(window=0), Log()
    stream = session.open(Kind.EXEC, b"", log)
    waiting, ping = stream.send(b"x"), session.ping()
    gone = ClosedError("guest", "it went away")
    session.fail(gone)
    told = [*log.seen, waiting.exception(0), ping.exception(0)]
    assert [str(error) for error in told] == ["guest is closed: it went away"] * 3
    assert len({id(error) for error in (gone, *told)}) == 4, "tracebacks would pile up in one"


def test_a_command_that_no_frame_can_hold_is_refused():
    with pytest.raises(SpecError) as caught:
        greeted().open(Kind.EXEC, bytes(300_000), Log())
    assert str(caught.value) == "command takes at most 262144 bytes, got 300000"


def test_streams_wait_until_there_is_room():
    session, logs = greeted(count=10), [Log() for _ in range(5)]
    one, _, three, four = (session.open(Kind.EXEC, b"%d" % n, logs[n]) for n in range(4))
    three.send(b"input")
    assert [(f.kind, f.payload) for f in sent(session)] == [(Kind.EXEC, b"0"), (Kind.EXEC, b"1")]
    session.open(Kind.EXEC, b"urgent", logs[4], urgent=True)
    assert [(f.stream, f.payload) for f in sent(session)] == [(3, b"urgent")]
    four.control(Kind.CANCEL)
    (error,) = logs[3].seen
    assert str(error) == "the command is closed: it was cancelled before it began"
    assert one.number == 1
    session.feed(frame(Kind.END, stream=1) + frame(Kind.END, stream=3))
    assert [(f.kind, f.stream) for f in sent(session)] == [
        (Kind.EXEC, 4),
        (Kind.DATA, 4),
    ]
    session.fail(ClosedError("guest", "gone"))
    assert [type(log.seen[-1]) for log in logs[1:4]] == [ClosedError] * 3


def test_credit_for_a_channel_that_ended_is_not_sent():
    session, log = greeted(), Log()
    stream = session.open(Kind.EXEC, b"", log)
    session.feed(data(WINDOW) + frame(Kind.EOF, channel=1))
    sent(session)
    stream.taken(1, WINDOW)
    assert sent(session) == []


def test_datagrams_are_sent_whole_or_not_at_all():
    session = greeted(window=100)
    stream = session.open(Kind.CONNECT, b"", Log())
    session.take()
    assert [stream.send_whole(bytes(size)) for size in (60, 60, 40, 1, 0)] == [
        True,
        False,
        True,
        False,
        True,
    ]
    assert session.take() == [
        protocol.encode(Kind.DATA, stream.number, 0, bytes(size)) for size in (60, 40, 0)
    ]


def test_a_datagram_is_lost_before_its_stream_begins():
    session = Session(NONCE)
    stream = session.open(Kind.CONNECT, b"", Log())
    session.take()
    assert not stream.send_whole(b"")
    assert session.take() == []
