"""The memory of running guests: wherever QEMU put it, it is where `info mtree` says it is."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, Firmware, Machine, Memory, RunningVM, aio
from pyvirt.devices import StdVga
from pyvirt.errors import AddressError, ClosedError, UnsupportedError
from pyvirt.machine import DIMM, NumaNode, VirtioMem

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

MIB = 1 << 20
GIB = 1 << 30
SHADOW = 256 << 10

_LINE = re.compile(
    r" ([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (?:ram|rom)\): (\S+)(?: @([0-9a-f]+))?"
)


def idle(machine: str | Machine = "q35", memory: str | Memory = "64M", **more: object) -> VM:
    """A machine that never runs an instruction."""
    return VM(
        machine=machine, memory=memory, boot=Firmware(), agents=(), accel="tcg", paused=True, **more
    )


def mtree(running: RunningVM) -> Iterator[tuple[int, int, str, int]]:
    """QEMU's own map of the memory of the first address space that has any."""
    text = running.qmp.human_monitor_command(command_line="info mtree -f")
    for view in text.split("FlatView"):
        found = [_LINE.match(line[1:]) for line in view.splitlines()]
        pieces = [match for match in found if match]
        if 'AS "memory"' in view:
            for match in pieces:
                start, end, name, offset = match.groups()
                yield int(start, 16), int(end, 16) + 1, name, int(offset or "0", 16)
            return


def mine(running: RunningVM) -> list[tuple[int, int, str, int]]:
    """The same of pyvirt's regions."""
    regions = running.memory.regions
    return [(r.guest, r.end, r.name, r.offset) for r in regions]


MACHINES = [
    pytest.param(idle(), id="q35-small"),
    pytest.param(idle("q35", "3G"), id="q35-around-the-hole"),
    pytest.param(idle("pc", "3G"), id="pc-below-the-hole"),
    pytest.param(idle("pc", "4G"), id="pc-around-the-hole"),
    pytest.param(idle(Machine("q35", max_ram_below_4g=GIB), "2G"), id="q35-low-hole"),
    pytest.param(idle("microvm", "4G"), id="microvm"),
    pytest.param(idle("pc", "64M", video=StdVga()), id="vga-window"),
    pytest.param(idle("q35", Memory(nodes=[NumaNode("1G", cpus=[0]), NumaNode("2G"),
                                           NumaNode("512M")])), id="nodes-around-the-hole"),
    pytest.param(idle("q35", Memory("128M", slots=2, maximum="4G"),
                      devices=[DIMM("256M"), VirtioMem("512M")]), id="modules"),
]  # fmt: skip


@pytest.mark.parametrize("vm", MACHINES)
def test_memory_is_where_qemu_says_it_is(vm: VM) -> None:
    with vm.start() as running:
        pieces = mine(running)
        backends = {name for _, _, name, _ in pieces}
        checked = 0
        for start, end, name, offset in mtree(running):
            if name in backends:
                inside = [p for p in pieces if p[0] <= start and end <= p[1]]
                assert inside, f"{start:#x}-{end:#x} {name} is missing in {pieces}"
                ((guest, _, found, at),) = inside
                assert (found, at + start - guest) == (name, offset)
                checked += end - start
        # Firmware has not begun to copy itself to RAM from 768 KiB to 1 MiB.
        assert 0 <= running.memory.size - checked <= SHADOW
        for guest, end, _, _ in pieces:
            assert running.memory.read(guest, 16) == saved(running, guest, 16)
            assert running.memory.read(end - 16, 16) == saved(running, end - 16, 16)


def saved(running: RunningVM, guest: int, size: int) -> bytes:
    """What QEMU's own pmemsave reads."""
    path = running._engine.directory / "saved"
    running.qmp.pmemsave(val=guest, size=size, filename=str(path))
    try:
        return path.read_bytes()
    finally:
        path.unlink()


def test_modules_that_are_plugged_later_are_there() -> None:
    with idle("q35", Memory("128M", slots=2, maximum="2G")).start() as running:
        before = running.memory
        assert running.memory is before
        running.plug(DIMM("128M"))
        assert running.memory.size == before.size + 128 * MIB
        (module,) = running.memory.regions[-1:]
        assert running.memory.read(module.guest, 8) == bytes(8)
        with pytest.raises(AddressError):
            before.read(module.guest, 8)


@pytest.mark.parametrize(
    ("memory", "field"),
    [
        pytest.param(Memory("64M", share=False), "memory.share is False", id="private"),
        pytest.param(Memory("64M", backend="anonymous"), "memory.backend is 'anonymous'",
                     id="anonymous"),
    ],
)  # fmt: skip
def test_memory_that_is_not_shared_names_the_field(memory: Memory, field: str) -> None:
    with idle(memory=memory).start() as running, pytest.raises(UnsupportedError) as caught:
        running.memory  # noqa: B018 - asking is the act
    assert caught.value.what == "reading guest memory from outside"
    assert field in str(caught.value)


def test_a_file_that_may_shrink_is_read_without_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    with idle(memory=Memory("64M", backend="file", path=path)).start() as running:
        (region,) = running.memory.regions[:1]
        assert region.buffer is None
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), b"from outside", 4096)
        assert running.memory.read(4096, 12) == b"from outside"
        os.truncate(path, 0)
        with pytest.raises(OSError, match="could not be read from its file"):
            running.memory.read(4096, 12)
        os.truncate(path, 64 * MIB)


def test_a_guest_that_ended_says_so_and_faults_nowhere() -> None:
    with idle(memory="64M").start() as running:
        memory = running.memory
        assert memory.read(0, 16) == bytes(16)
        os.kill(running.pid, 9)
        running.wait(timeout=30)
        for read in (lambda: memory.read(0, 16), lambda: memory.read(0, MIB),
                     lambda: list(memory.search(b"x")), lambda: running.memory):  # fmt: skip
            with pytest.raises(ClosedError) as caught:
                read()
            assert "SIGKILL" in str(caught.value)


def test_guest_memory_is_awaited() -> None:
    async def scenario() -> None:
        async with aio.start(idle(memory="64M")) as running:
            memory = await running.memory
            assert memory.size == 64 * MIB
            assert await running.rings() == ()

    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_a_dump_has_the_memory_of_its_guest(tmp_path: Path) -> None:
    from pyvirt.virtio.memory import GuestMemory

    with idle(memory="32M").start() as running:
        path = tmp_path / "dump"
        running.qmp.dump_guest_memory(paging=False, protocol=f"file:{path}")
        with GuestMemory.from_dump(path) as dump:
            for place in (0, MIB, 32 * MIB - 64):
                assert dump.read(place, 64) == running.memory.read(place, 64)
        running.qmp.pmemsave(val=MIB, size=MIB, filename=str(tmp_path / "saved"))
        with GuestMemory.from_file(tmp_path / "saved", at=MIB) as part:
            assert part.read(MIB, MIB) == running.memory.read(MIB, MIB)
