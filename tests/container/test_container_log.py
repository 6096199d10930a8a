"""What liblxc's log tells."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.lxc import log
from pyvirt.lxc.log import Ending


def said(level: str, place: str, words: str) -> str:
    return f"lxc web 20261122124309.160 {level:8} {place} - ../src/lxc/{place}.c:f:12 - {words}\n"


STARTED = (
    "lxc web 20261122124309.172 NOTICE   start - ../src/lxc/start.c:post_start:2205 - "
    'Started "/sbin/init" with pid "13667"\n'
)


@pytest.mark.parametrize(
    ("words", "end"),
    [
        pytest.param("", Ending(code=0), id="nothing-is-zero"),
        pytest.param("Child <13667> ended on error (3)", Ending(code=3), id="code"),
        pytest.param("Child <13667> ended on signal Killed(9)", Ending(signal=9), id="signal"),
        pytest.param("Child <13667> ended on signal (11)", Ending(signal=11), id="old-signal"),
        pytest.param("Child <13> ended on error (3)", Ending(code=0), id="another-child"),
    ],
)
def test_how_the_first_process_ended(words: str, end: Ending) -> None:
    assert log.ending(STARTED + said("INFO", "error", words)) == end


def test_the_last_start_counts() -> None:
    ended = said("INFO", "error", "Child <13667> ended on error (3)")
    again = STARTED.replace("13667", "14000")
    assert log.ending(STARTED + ended + again) == Ending(code=0)


def test_nothing_is_known_of_what_never_started() -> None:
    assert log.ending("") == Ending()


def test_the_first_cause_comes_first_and_its_echoes_are_left_out() -> None:
    text = (
        said("WARN", "conf", "nobody minds")
        + said("ERROR", "start", 'No such file or directory - Failed to exec "/sbin/init"')
        + said("ERROR", "start", 'Failed to spawn container "web"')
    )
    assert log.errors(text) == ['No such file or directory - Failed to exec "/sbin/init"']


def test_an_echo_is_better_than_nothing() -> None:
    only = 'Failed to spawn container "web"'
    assert log.errors(said("ERROR", "start", only)) == [only]


@given(st.text())
def test_any_text_is_a_log(text: str) -> None:
    log.errors(text)
    log.ending(text)
