from __future__ import annotations

import os
import socket
import threading

import pytest

from pyvirt.running.waiting.loop import loop


@pytest.fixture
def pair():
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        loop().remove(end.fileno())
        end.close()


def settle():
    """Everything that was ready has been called: a full turn lies between two `soon`s."""
    for _ in range(2):
        done = threading.Event()
        loop().soon(done.set)
        assert done.wait(10)


def test_readable_is_called_on_the_loop_thread(pair):
    got, done = [], threading.Event()

    def readable():
        got.append((pair[0].recv(10), loop().here()))
        done.set()

    loop().add(pair[0].fileno(), readable)
    pair[1].send(b"x")
    assert done.wait(10)
    assert got == [(b"x", True)]
    assert not loop().here()


def test_a_paused_descriptor_is_silent_even_when_it_ends(pair):
    calls = []
    loop().add(pair[0].fileno(), lambda: calls.append(pair[0].recv(10)))
    loop().reading(pair[0].fileno(), False)
    pair[1].send(b"x")
    pair[1].shutdown(socket.SHUT_RDWR)
    settle()
    assert calls == []
    loop().reading(pair[0].fileno(), True)
    settle()
    assert calls[:2] == [b"x", b""]


def test_writable_is_called_until_disarmed(pair):
    calls, done = [], threading.Event()

    def writable():
        calls.append(1)
        loop().writable(pair[0].fileno(), None)
        done.set()

    loop().add(pair[0].fileno(), lambda: None)
    loop().writable(pair[0].fileno(), writable)
    assert done.wait(10)
    settle()
    assert calls == [1]


def test_removed_descriptors_are_silent_and_removing_twice_is_fine(pair):
    calls = []
    loop().add(pair[0].fileno(), lambda: calls.append(1))
    loop().remove(pair[0].fileno())
    loop().remove(pair[0].fileno())
    pair[1].send(b"x")
    settle()
    assert calls == []


def test_timers_fire_in_their_order_unless_cancelled():
    order, done = [], threading.Event()
    loop().later(0.03, done.set)
    loop().later(0.02, lambda: order.append("second"))
    loop().later(0.01, lambda: order.append("first"))
    loop().later(0.015, lambda: order.append("never")).cancel()
    assert done.wait(10)
    assert order == ["first", "second"]


def test_cancelled_timers_do_not_pile_up():
    for _ in range(10_000):
        loop().later(3600, lambda: None).cancel()
    assert len(loop()._timers) < 1000


def test_a_failing_callback_is_reported_and_the_loop_goes_on(monkeypatch):
    reports = []
    monkeypatch.setattr(threading, "excepthook", reports.append)
    loop().soon(lambda: 1 / 0)
    settle()
    assert [report.exc_type for report in reports] == [ZeroDivisionError]


def test_a_forked_child_gets_a_loop_of_its_own(pair):
    loop().add(pair[0].fileno(), lambda: pair[0].send(pair[0].recv(10).upper()))
    child = os.fork()
    if child == 0:
        done = threading.Event()
        loop().soon(done.set)
        os._exit(0 if done.wait(10) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    pair[1].send(b"parent")
    pair[1].setblocking(True)
    assert pair[1].recv(10) == b"PARENT"
