"""Errors travel between processes and threads with all their facts."""

from __future__ import annotations

import copy
import pickle

import pytest

from pyvirt import errors
from pyvirt.guest.result import Result

RESULT = Result("false", 1, None, "", "no\n", 0.1)
EXAMPLES = [
    errors.SpecError("cpus", "must be positive", 0),
    errors.UnsupportedError("igb", "QEMU 7.2.22", "did you mean e1000e?"),
    errors.ProtocolError("QEMU", "sent no JSON", 17),
    errors.ClosedError("vm", "QEMU ended: killed"),
    errors.CommandError("device_add", "GenericError", "no"),
    errors.TimedOut("a ping", 0.5, "the last line"),
    errors.RunError(RESULT),
    errors.RunTimedOut("sleep", 1.0, "", ""),
    errors.GuestError("put", "no space", 28),
    errors.TraceError("a.trace", "is no trace of pyvirt", 0),
    errors.UnplugError("disk0", "the guest refused"),
    errors.StartError("qemu", "exit code 1", "bad option"),
    errors.AddressError(0xBFFFFFFE, 4, hole=0xC0000000, end=0x100000000),
    errors.RingError("a chain loops", place=4096, index=3, found=9, device="disk0", queue=0),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_are_pickled_and_copied_with_their_facts(error: errors.PyvirtError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_is_one_sentence(error: errors.PyvirtError) -> None:
    assert "\n" not in str(error)
    assert not str(error).endswith(".")


def test_limits_and_connections_keep_their_built_in_bases() -> None:
    assert issubclass(errors.TimedOut, TimeoutError)
    assert issubclass(errors.ClosedError, ConnectionError)
    assert issubclass(errors.SpecError, ValueError)


def test_each_of_many_who_wait_has_an_error_of_its_own() -> None:
    shared = errors.ClosedError("vm", "killed")
    shared.__cause__ = OSError("gone")
    mine = errors.own(shared)
    assert mine is not shared
    assert (str(mine), vars(mine), mine.__cause__) == (str(shared), vars(shared), shared.__cause__)
    foreign = KeyError("x")
    assert errors.own(foreign) is foreign
