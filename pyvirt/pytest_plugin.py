"""Guests and containers as fixtures of pytest, for tests of whatever runs inside of them.

pytest loads this wherever pyvirt is installed; what it needs is imported by the first test
that asks for a fixture.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pyvirt import VM, Container, RunningContainer, RunningVM
    from pyvirt.running.shared import SharedGuest

#: Marker → what it says.
MARKERS = {
    "needs_kvm": "skip, with the reason, where KVM does not run guests",
    "needs_root": "skip unless root runs the tests",
    "needs_lxc": "skip, with the reason, where no containers can be",
    "pyvirt_fresh": "give this test a pyvirt_guest that no other test uses",
}

#: Characters of a console that the report of a failed test shows.
TAIL = 4000

_HELD = pytest.StashKey[list[Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pyvirt", "guests and containers of pyvirt")
    group.addoption(
        "--pyvirt-accel",
        choices=("auto", "kvm", "tcg"),
        default="auto",
        help="what runs the code of guests (default: kvm where it works, else tcg)",
    )
    group.addoption(
        "--pyvirt-timeout",
        type=float,
        metavar="SECONDS",
        help="how long a guest may take to boot, and to be made as before (default: 120)",
    )
    parser.addini("pyvirt_timeout", "the same as --pyvirt-timeout", default="120")


def pytest_configure(config: pytest.Config) -> None:
    for name, words in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {words}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, reason in _REASONS.items():
        if item.get_closest_marker(name) is not None and (found := reason()) is not None:
            pytest.skip(found)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The report of a failure shows the last that its guests wrote on their consoles."""
    report = yield
    if report.failed and call.when == "call":
        for running in item.stash.get(_HELD, []):
            report.sections.append((f"console of {running}", _console(running)))
    return report


def _console(running: Any) -> str:
    from pyvirt.errors import PyvirtError

    try:
        return str(running.console.tail[-TAIL:])
    except (PyvirtError, OSError) as error:  # it is gone; the test's own fault is the news
        return str(error)


# -- Reasons to skip --------------------------------------------------------------------------


def no_kvm() -> str | None:
    """Why KVM runs no guests here, or None when it does."""
    from pyvirt.running.host.accel import prove

    found = prove()
    return None if found.name == "kvm" else f"needs KVM: {found.reason}"


def no_root() -> str | None:
    """Why what only root may do is not tried."""
    return None if os.geteuid() == 0 else "needs root"


def no_lxc() -> str | None:
    """Why there can be no containers here, or None when there can."""
    from pyvirt.errors import UnsupportedError
    from pyvirt.running.lxc.library import library

    try:
        library()
    except UnsupportedError as error:
        return f"needs LXC: {error}"
    return "needs LXC, and that needs root here" if no_root() else None


_REASONS = {"needs_kvm": no_kvm, "needs_root": no_root, "needs_lxc": no_lxc}


# -- Fixtures ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def pyvirt_timeout(pytestconfig: pytest.Config) -> float:
    """Seconds that a guest may take to boot: ``--pyvirt-timeout``, or the ini file's."""
    given = pytestconfig.getoption("pyvirt_timeout")
    return float(pytestconfig.getini("pyvirt_timeout") if given is None else given)


@pytest.fixture(scope="session")
def pyvirt_description(pytestconfig: pytest.Config) -> VM:
    """What `pyvirt_guest` is: a VM with pyvirt's default guest. Override it for another."""
    from pyvirt.vm import VM

    return VM(name="pytest", memory="256M", accel=pytestconfig.getoption("pyvirt_accel"))


@pytest.fixture(scope="session")
def _pyvirt_shared(pyvirt_description: VM, pyvirt_timeout: float) -> Iterator[SharedGuest]:
    from pyvirt.running.shared import SharedGuest

    with SharedGuest(pyvirt_description, timeout=pyvirt_timeout) as shared:
        yield shared


@pytest.fixture
def pyvirt_guest(
    request: pytest.FixtureRequest, _pyvirt_shared: SharedGuest
) -> Iterator[RunningVM]:
    """A booted guest, as it was after its boot: see docs/testing.md for what is reset."""
    alone = request.node.get_closest_marker("pyvirt_fresh") is not None
    if alone:
        _pyvirt_shared.discard()
    running = _pyvirt_shared.ready()
    _hold(request, running)
    yield running
    if alone:
        _pyvirt_shared.discard()
    else:
        _pyvirt_shared.reset()


@pytest.fixture
def pyvirt_directory(pyvirt_guest: RunningVM) -> str:
    """A directory in `pyvirt_guest`, which is empty and is removed after the test."""
    made = pyvirt_guest.run(["mktemp", "-d", "/tmp/pytest-XXXXXX"], check=True)
    return str(made.stdout).strip()


@pytest.fixture
def pyvirt_vm(
    request: pytest.FixtureRequest, pytestconfig: pytest.Config, pyvirt_timeout: float
) -> Iterator[Callable[..., RunningVM]]:
    """Starts VMs for one test: ``pyvirt_vm(VM(...))`` or ``pyvirt_vm(memory="1G")``.

    A VM with pyvirt's agent is returned once that answers. All are ended after the test,
    the last one first.
    """
    from contextlib import ExitStack

    from pyvirt.vm import VM

    with ExitStack() as stack:

        def start(vm: VM | None = None, **fields: Any) -> RunningVM:
            if vm is None:
                vm = VM(**{"accel": pytestconfig.getoption("pyvirt_accel"), **fields})
            elif fields:
                raise TypeError("give a VM or the fields of one, not both")
            running = stack.enter_context(vm.start(timeout=pyvirt_timeout))
            _hold(request, running)
            if "pyvirt" in running.vm.channels:
                running.wait_for(agent=True, timeout=pyvirt_timeout)
            return running

        yield start


@pytest.fixture
def pyvirt_container(
    request: pytest.FixtureRequest, pyvirt_timeout: float
) -> Iterator[Callable[..., RunningContainer]]:
    """Starts containers for one test: ``pyvirt_container(memory="64M")``.

    Skips, with the reason, where there can be none. All are destroyed after the test.
    """
    from contextlib import ExitStack

    from pyvirt.container import Container

    if (reason := no_lxc()) is not None:
        pytest.skip(reason)
    with ExitStack() as stack:

        def start(container: Container | None = None, **fields: Any) -> RunningContainer:
            if container is None:
                container = Container(**fields)
            elif fields:
                raise TypeError("give a Container or the fields of one, not both")
            running = stack.enter_context(container.start(timeout=pyvirt_timeout))
            _hold(request, running)
            return running

        yield start


def _hold(request: pytest.FixtureRequest, running: Any) -> None:
    """Its console is shown when the test fails."""
    request.node.stash.setdefault(_HELD, []).append(running)
