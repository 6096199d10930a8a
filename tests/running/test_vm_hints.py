"""What a VM was not described with is asked for by the name of the part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, Disk, Firmware, RunningVM, SpecError, StartError, UnsupportedError

pytestmark = needs_qemu


@pytest.fixture(scope="module")
def bare() -> Iterator[RunningVM]:
    with VM(boot=Firmware(), agents=(), memory="64M", accel="tcg").start() as running:
        yield running


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda vm: vm.balloon("32M"), "a balloon is not available in this VM; "
         "describe one: devices=[Balloon()]"),
        (lambda vm: vm.screenshot(), "a screen is not available in this VM; "
         "describe a card: video=StdVga()"),
        (lambda vm: vm.point(0.5, 0.5), "a pointer is not available in this VM; "
         "describe it: devices=[UsbTablet()]"),
        (lambda vm: vm.set_vnc_password("x"), "a VNC server with a password is not available in "
         "this VM; describe one that asks for a password: displays=[Vnc(..., password=...)]"),
        (lambda vm: vm.set_spice_password("x"), "a SPICE server is not available in this VM; "
         "describe one: displays=[Spice(...)]"),
        (lambda vm: vm.run("true"), "a channel to an agent is not available in VM vm; "
         "describe the VM with agents=['qga'] and run qemu-guest-agent in the guest"),
        (lambda vm: vm.events("RESUMED"), "event 'RESUMED' is not available in QEMU 7.2.22; "
         "did you mean 'RESUME'?"),
    ],
)  # fmt: skip
def test_a_part_that_is_missing(
    bare: RunningVM, act: Callable[[RunningVM], Any], sentence: str
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        act(bare)
    version = ".".join(map(str, bare.capabilities.version))
    assert str(caught.value) == sentence.replace("7.2.22", version)


@pytest.mark.parametrize(
    ("act", "field"),
    [
        (lambda vm: vm.plug(3), "part"),
        (lambda vm: vm.send_keys("ctrl-foo"), "send-key.keys[1].data"),
        (lambda vm: vm.unplug("disk7"), "name"),
        (lambda vm: vm.balloon("lots"), "size"),
    ],
)
def test_a_word_that_is_wrong(
    bare: RunningVM, act: Callable[[RunningVM], Any], field: str
) -> None:
    with pytest.raises(SpecError) as caught:
        act(bare)
    assert caught.value.field == field


def test_the_raw_way_to_qmp(bare: RunningVM) -> None:
    assert bare.qmp.execute("query-name") == {"name": "vm"}
    assert "execute" in dir(bare.qmp)


def test_an_option_that_qemu_refuses_is_told_by_its_field() -> None:
    with pytest.raises(StartError) as caught:
        VM(boot=Firmware(), disks=[Disk("/nothing/here.qcow2")]).start()
    assert caught.value.words.endswith(
        "disks[0]: Could not open '/nothing/here.qcow2': No such file or directory"
    )


def test_an_agents_own_port_stays() -> None:
    with (
        VM(boot=Firmware(), agents=["qga"], memory="64M", accel="tcg").start() as running,
        pytest.raises(SpecError, match="must not be the channel to an agent"),
    ):
        running.unplug("qga")
