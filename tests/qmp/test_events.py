"""What is kept of the past of a flow, and who hears what."""

from __future__ import annotations

import pytest

from pyvirt.errors import ClosedError, SpecError, TimedOut
from pyvirt.qmp.event import Event
from pyvirt.qmp.flow import Until
from pyvirt.running.wire.events import PAST, PAST_NAMES, Events, Hub, Past


def test_what_is_wanted_follows_the_listeners():
    wanted = []
    hub = Hub(lambda names: wanted.append(None if names is None else sorted(names)))
    one, other = Events(hub, ("A", "B"), None, 1, None), Events(hub, ("B",), None, 1, None)
    every = Events(hub, (), None, 1, None)
    every.close()
    one.close()
    other.close()
    assert wanted == [["A", "B"], ["A", "B"], None, ["A", "B"], ["B"], []]


def test_a_past_keeps_the_newest_of_each_name_and_few_names():
    past = Past()
    for number in range(PAST + 10):
        past.offer(Event("A", {"n": number}))
    for number in range(PAST_NAMES + 10):
        past.offer(Event(f"N{number}"))
    assert past.wait(Until("A")).result(0).data["n"] == 10
    assert past.wait(Until("N0")).result(0).name == "N0"
    assert not past.wait(Until(f"N{PAST_NAMES + 5}")).done()


def test_waits_for_several_names_take_the_oldest():
    past = Past()
    for name in ("B", "A", "C"):
        past.offer(Event(name))
    until = Until(("A", "B"))
    assert [past.wait(until).result(0).name for _ in range(2)] == ["B", "A"]
    assert not past.wait(until).done()


def test_an_event_answers_the_oldest_wait_and_only_that():
    past = Past()
    first, second = past.wait(Until("A")), past.wait(Until("A"))
    past.offer(Event("A"))
    assert (first.done(), second.done()) == (True, False)
    second.cancel()
    past.offer(Event("A"))
    assert past.wait(Until("A")).done()


def test_a_wait_ends_in_time_or_with_the_connection():
    past = Past()
    late, left = past.wait(Until("A", timeout=0.01)), past.wait(Until("A"))
    with pytest.raises(TimedOut, match=r"^A took longer than 0.01 s$"):
        late.result(10)
    past.end(ClosedError("QEMU", "gone"), False)
    for future in (left, past.wait(Until("A"))):
        with pytest.raises(ClosedError):
            future.result(0)


def test_a_queue_holds_at_least_one():
    with pytest.raises(SpecError, match="size must be at least 1, got 0"):
        Events(Hub(lambda names: None), (), None, 0, None)
