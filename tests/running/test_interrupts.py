from __future__ import annotations

import signal
import threading

import pytest

from pyvirt.running.waiting.interrupts import Uninterrupted


def test_an_interrupt_comes_at_the_end_of_the_section():
    done = []
    with pytest.raises(KeyboardInterrupt), Uninterrupted():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        done.append(True)
    assert done == [True]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_comes_at_once_while_waiting():
    done = []
    with pytest.raises(KeyboardInterrupt), Uninterrupted() as section:  # noqa: PT012
        section.waiting = True
        signal.raise_signal(signal.SIGINT)
        done.append(True)
    assert done == []


def test_sections_nest():
    done = []
    with pytest.raises(KeyboardInterrupt), Uninterrupted():  # noqa: PT012
        with Uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_handlers_that_are_not_pythons_stay(handler):
    before = signal.signal(signal.SIGINT, handler)
    try:
        with Uninterrupted():
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_change_nothing():
    seen = []

    def section():
        with Uninterrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=section)
    thread.start()
    thread.join(10)
    assert seen == [signal.default_int_handler]
