"""The QEMU guest agent's protocol, against an agent that is a few lines of this file."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import ClosedError, GuestError, ProtocolError, SpecError
from pyvirt.guest import qga, qga_flows
from pyvirt.guest.qga import Replies, Reply
from pyvirt.qmp.flow import Command, Pause
from pyvirt.running.agents import qga as running_qga
from pyvirt.running.agents.qga import QemuGuestAgent

SOON = 60


# Without I/O


def test_everything_before_the_delimiter_is_skipped():
    replies = Replies()
    assert replies.feed(b'{"return": 1}\nSeaBIOS\r\n{"error"') == []
    assert replies.feed(b'\xff{"return": 5}\n{"return": {}}\n') == [
        Reply(True, 5, None),
        Reply(False, {}, None),
    ]


@given(st.lists(st.integers(0, 200), max_size=9))
def test_replies_survive_any_cutting(cuts):
    data = b'x\n\xff{"return": 5}\n{"error": {"class": "C", "desc": "no"}}\n\n{"return": []}\n'
    ends = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    replies, found = Replies(), []
    for at, end in pairwise(ends):
        found += replies.feed(data[at:end])
    assert found == [Reply(True, 5, None), Reply(False, None, "no"), Reply(False, [], None)]
    assert replies.offset == len(data)


@given(st.binary(max_size=300))
def test_any_bytes_are_replies_or_its_own_error(data):
    replies = Replies()
    try:
        found = replies.feed(b"\xff" + data)
    except ProtocolError as error:
        outcome = error.peer
    else:
        outcome = all(isinstance(one, Reply) for one in found)
    assert outcome in (True, qga.PEER)


@pytest.mark.parametrize(
    "line",
    [b"[]", b"{}", b'{"return"', b"\x00", b'{"QMP": 1}', b'{"error": 3}', b"[" * 100_000],
)
def test_what_is_no_reply_is_refused(line):
    with pytest.raises(ProtocolError) as caught:
        Replies().feed(b"\xff" + line + b"\n")
    assert str(caught.value) == "the QEMU guest agent sent what is no reply at byte 0"


def test_a_line_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(qga, "LINE", 1000)
    replies = Replies()
    replies.feed(b"\xff" + b" " * 900)
    with pytest.raises(ProtocolError, match="a line without an end"):
        replies.feed(b" " * 200)


def test_text_that_json_cannot_hold_is_refused():
    with pytest.raises(SpecError) as caught:
        qga.encode(Command("guest-exec", {"path": "\udcff"}))
    assert str(caught.value) == ("text must be valid UTF-8 for the QEMU guest agent, got '\\udcff'")


def test_reasons_name_their_error_number():
    error = qga.refused("/x", "failed to open file '/x' (mode: 'r'): No such file or directory")
    assert error.errno == 2
    assert qga.refused("/x", "it is Tuesday").errno is None


def test_looks_grow_rarer_and_end():
    flow = qga_flows.until_exit(7)
    assert next(flow) == Command("guest-exec-status", {"pid": 7})
    pauses = []
    for _ in range(60):
        step = flow.send({"exited": False})
        assert isinstance(step, Pause)
        pauses.append(step.seconds)
        assert flow.send(None) == Command("guest-exec-status", {"pid": 7})
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.0005, 0.1)
    with pytest.raises(StopIteration) as end:
        flow.send({"exited": True, "exitcode": 3})
    assert end.value.value["exitcode"] == 3


@pytest.mark.parametrize("answer", [None, [], {}, {"pid": "7"}, {"pid": None}])
def test_an_answer_that_breaks_the_schema_is_refused(answer):
    flow = qga_flows.start(["true"])
    next(flow)
    with pytest.raises(ProtocolError, match="without a proper 'pid'"):
        flow.send(answer)


def test_output_that_is_no_base64_is_refused():
    flow = qga_flows.script(["true"])
    next(flow)
    flow.send({"pid": 1})
    with pytest.raises(ProtocolError, match="not base64"):
        flow.send({"exited": True, "out-data": "\u2603"})


def test_too_much_input_is_told_before_anything_is_sent():
    flow = qga_flows.start(["cat"], bytes(qga_flows.INPUT + 1))
    with pytest.raises(SpecError) as caught:
        next(flow)
    assert caught.value.reason == "takes at most 33554432 bytes with the QEMU guest agent"


# With a connection


class Agent:
    """The guest's end: answers the sync, then whatever `answer` says."""

    def __init__(self, answer):
        self.ours, self.theirs = socket.socketpair()
        self.answer = answer
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        with self.theirs, self.theirs.makefile("rb") as lines:
            for line in lines:
                request = json.loads(line.lstrip(b"\xff"))
                said = self.answer(request["execute"], request.get("arguments", {}))
                if said is None and request["execute"] == "guest-sync-delimited":
                    said = b'\xff{"return": %d}\n' % request["arguments"]["id"]
                if said:
                    self.theirs.sendall(said)


def connected(answer):
    agent = Agent(answer)
    return QemuGuestAgent(agent.ours, lambda: "it went away")


def said(value):
    return json.dumps({"return": value}).encode() + b"\n"


def test_what_is_asked_before_the_agent_answers_waits():
    ours, theirs = socket.socketpair()
    with theirs, theirs.makefile("rb") as lines:
        carrier = QemuGuestAgent(ours, lambda: "")
        ping = carrier.ping()
        number = json.loads(lines.readline()[1:])["arguments"]["id"]
        theirs.sendall(b'junk {"return": 1}\n\xff{"return": 77}\n\xff{"return": %d}\n' % number)
        assert json.loads(lines.readline())["execute"] == "guest-ping"
        theirs.sendall(said({}))
        assert ping.result(SOON) > 0
        carrier.close()


def test_an_agent_that_was_restarted_is_noticed(monkeypatch):
    monkeypatch.setattr(running_qga, "SILENCE", 0.1)

    def forgetful(name, arguments):
        return b"" if name == "guest-info" else None

    carrier = connected(forgetful)
    with pytest.raises(ClosedError) as caught:
        carrier.execute("guest-info").result(SOON)
    assert caught.value.why == "it was restarted and forgot the request"
    carrier.close()


def test_a_shutdown_that_is_refused():
    def refusing(name, arguments):
        if name == "guest-shutdown":
            return b'{"error": {"class": "GenericError", "desc": "not now"}}\n'
        return said({}) if name == "guest-ping" else None

    carrier = connected(refusing)
    with pytest.raises(GuestError) as caught:
        carrier.shutdown().result(SOON)
    assert str(caught.value) == "guest-shutdown failed in the guest: not now"
    assert carrier.ping().result(SOON) > 0
    carrier.close()


def test_a_shutdown_that_is_agreed_to_is_not_answered():
    asked = []

    def agreeing(name, arguments):
        asked.append((name, arguments))
        return said({}) if name == "guest-ping" else None

    carrier = connected(agreeing)
    carrier.shutdown("reboot").result(SOON)
    assert ("guest-shutdown", {"mode": "reboot"}) in asked
    carrier.close()


def test_an_agent_that_answers_unasked_is_dropped():
    ours, theirs = socket.socketpair()
    with theirs:
        carrier = QemuGuestAgent(ours, lambda: "")
        number = json.loads(theirs.recv(1000)[1:])["arguments"]["id"]
        theirs.sendall(b'\xff{"return": %d}\n{"return": 3}\n' % number)
        while carrier._error is None:
            time.sleep(0.01)
        with pytest.raises(ProtocolError, match="answered what was not asked"):
            carrier.ping()


def test_the_end_of_the_connection_fails_everything():
    ours, theirs = socket.socketpair()
    carrier = QemuGuestAgent(ours, lambda: "QEMU was killed", peer="guest")
    waiting = carrier.run("true")
    theirs.close()
    for future in (waiting, carrier.ready):
        with pytest.raises(ClosedError) as caught:
            future.result(SOON)
        assert str(caught.value) == "guest is closed: QEMU was killed"


def test_output_that_the_agent_cut_is_marked():
    status = {
        "exited": True,
        "exitcode": 0,
        "out-data": base64.b64encode(b"much").decode(),
        "out-truncated": True,
    }
    answers = {"guest-exec": said({"pid": 5}), "guest-exec-status": said(status)}
    carrier = connected(lambda name, arguments: answers.get(name))
    result = carrier.run("x").result(SOON)
    assert (result.stdout, result.cut) == ("much", True)
    carrier.close()
