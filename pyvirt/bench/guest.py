"""A booted guest in which points are measured, one after another."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import attrs
import msgspec
from attrs import frozen

from pyvirt.bench.counts import EVENTS, IDE_PORTS, Registers, devices_of, registers, vdevs
from pyvirt.bench.place import Place
from pyvirt.disk import Disk
from pyvirt.errors import GuestError, UnsupportedError
from pyvirt.guest import Guest
from pyvirt.machine import Actions
from pyvirt.nic import Nic
from pyvirt.qemu.render import argv
from pyvirt.running.children.keeper import temporary_directory
from pyvirt.running.guest.apt import Progress
from pyvirt.running.vm import RunningVM
from pyvirt.vm import VM

T = TypeVar("T")

#: What every benchmark guest has.
GUEST = Guest(packages=["fio", "iperf3"])

#: Seconds that the guest gets to find a new device, and to say what it is asked.
PATIENCE = 60.0

_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_REPORT = "/tmp/report.json"

_DISKS = """
for disk in /sys/block/*; do
    serial=$(tr -d '\\0' < $disk/device/vpd_pg80 2>/dev/null)
    echo "${disk##*/} $(readlink $disk) $(cat $disk/size) $serial"
done
"""
# Old SCSI controllers tell nobody of disks that come, and go.
_SCAN = "for host in /sys/class/scsi_host/*; do echo '- - -' > $host/scan; done"
# Cards get their addresses here, and not by what a DHCP server answers in the meantime.
_QUIET = """
for what in all default; do echo 1 > /proc/sys/net/ipv6/conf/$what/disable_ipv6; done
echo '#!/bin/sh' > /etc/pyvirt/dhcp
"""


@frozen
class Found:
    """A device as the guest knows it: its name there, and the address of its PCI function.

    `words` are QEMU's options for it, where it was plugged.
    """

    name: str
    pci: str
    words: tuple[str, ...] = ()


class BenchGuest:
    """A running guest with fio and iperf3. Use it in a ``with``, or `close` it.

    `residents` are disks that are there from the start, by their serial numbers.
    """

    def __init__(
        self,
        place: Place,
        residents: Mapping[str, Disk],
        progress: Progress | None = None,
        name: str = "bench",
    ) -> None:
        self.place = place
        self._directory = temporary_directory("pyvirt-bench-")
        self._log = self._directory.path / "trace.log"
        try:
            vm = VM(
                name=name,  # MAC addresses are derived from it
                machine=place.machine,
                cpus=place.cpus,
                memory=place.memory,
                accel=place.accel,
                boot=GUEST,
                disks=tuple(residents.values()),
                actions=Actions(reboot="shutdown"),  # one that panicked is over at once
                arguments=("-D", str(self._log)),
            )
            self.running: RunningVM = vm.start(progress=progress)
        except BaseException:
            self._directory.close()
            raise
        try:
            self.running.run(_QUIET, timeout=PATIENCE)
            self.kernel = self.running.run(["uname", "-r"], check=True).stdout.strip()
            self._others = self._background()
        except BaseException:
            self.close()
            raise

    # What is there

    def disk(self, serial: str) -> Found:
        """The resident disk with that serial number."""
        for found, told in self._disks():
            if told.endswith(serial):
                return found
        raise GuestError(f"finding disk {serial}", "it has no driver for its controller")

    def _disks(self) -> Iterator[tuple[Found, str]]:
        for line in self._said(_DISKS).splitlines():
            name, path, size, serial = (line + " ").split(" ", 3)
            if size.isdigit() and int(size):  # one that just goes has none
                yield Found(name, _function(path)), serial.strip()

    def _cards(self) -> Iterator[Found]:
        listing = "for card in /sys/class/net/*; do echo ${card##*/} $(readlink $card); done"
        for line in self._said(listing).splitlines():
            name, path = line.split(" ", 1)
            if _PCI.search(path):
                yield Found(name, _function(path))

    @contextmanager
    def plugged(self, part: Disk | Nic) -> Iterator[Found]:
        """The part, plugged and found by the guest, until the end of the block."""
        here = self._parts(part)
        before = set(here())
        name = self.running.plug(part)
        scsi = isinstance(part, Disk) and part.bus == "scsi"
        if scsi:
            self._said(_SCAN)
        kind = part.model if isinstance(part, Nic) else part.controller or part.bus
        new = _until(
            lambda: next(iter(set(here()) - before), None),
            f"finding the {kind} device",
            "no driver of its kernel took it",
        )
        yield attrs.evolve(new, words=self._words(part))
        if scsi:
            self._said(f"echo 1 > /sys/block/{new.name}/device/delete")
        self.running.unplug(name, timeout=PATIENCE)

    def _words(self, part: Disk | Nic) -> tuple[str, ...]:
        """The options that would give QEMU the part at its start."""
        vm = self.running.vm
        before = vm.plan().options
        if isinstance(part, Nic):
            more = attrs.evolve(vm, nics=(*vm.nics, part))
        else:
            more = attrs.evolve(vm, disks=(*vm.disks, part))
        whole = more.plan().options
        return tuple(argv(option for option in whole if option not in before))

    def _parts(self, part: Disk | Nic) -> Callable[[], list[Found]]:
        if isinstance(part, Nic):
            return lambda: list(self._cards())
        return lambda: [found for found, _serial in self._disks()]

    # What is run

    def fio(self, job: str, seconds: float) -> dict[str, Any]:
        """fio's report of a job."""
        words = ["fio", "--output-format=json", f"--output={_REPORT}", "-"]
        done = self.running.run(words, input=job, timeout=seconds)
        return self._report(self.running.read_text(_REPORT, timeout=PATIENCE), done.stderr)

    def report(self, words: Sequence[str], seconds: float) -> dict[str, Any]:
        """The JSON that a program writes to its standard output."""
        command = f"{shlex.join(words)} > {_REPORT}"
        done = self.running.run(command, timeout=seconds)
        return self._report(self.running.read_text(_REPORT, timeout=PATIENCE), done.stderr)

    def _report(self, text: str, words: str) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            said = words.strip() or text.strip() or str(error)
            raise GuestError("the workload", said[-500:]) from error
        if not isinstance(found, dict):
            raise GuestError("the workload", f"it reported {text[:100]}")
        return found

    def connect(self, card: str, address: str, prefix: int) -> None:
        """Give a card its address, and wait until its link is up."""
        self._said(f"ip addr replace {address}/{prefix} dev {card} && ip link set {card} up")
        carrier = f"cat /sys/class/net/{card}/carrier"
        _until(
            lambda: self._said(carrier).strip() == "1" or None,
            f"joining {card}",
            "its link stays down",
        )

    def _said(self, command: str) -> str:
        return str(self.running.run(command, check=True, timeout=PATIENCE).stdout)

    # What is counted

    def registers(self, device: Found) -> Registers:
        """Where the registers of a device are now."""
        return registers(self._qemus(device))

    def id(self, device: Found) -> str:
        """QEMU's id of the device: of the controller, where it has one."""
        return str(self._qemus(device)["qdev_id"])

    def _qemus(self, device: Found) -> Mapping[str, object]:
        """What QEMU tells of the PCI function of a device."""
        place = tuple(int(word, 16) for word in re.split("[:.]", device.pci)[1:])
        for one in devices_of(self.running.qmp.execute("query-pci")):
            if (one["bus"], one["slot"], one["function"]) == place:
                return one
        raise GuestError(f"finding {device.pci}", "QEMU has no such PCI function")

    def interrupt_lines(self, device: Found) -> frozenset[str]:
        """The numbers of its interrupts, as ``/proc/interrupts`` has them."""
        place = f"/sys/bus/pci/devices/{device.pci}"
        listed = self._said(f"ls {place}/msi_irqs 2>/dev/null || cat {place}/irq").split()
        where = self.registers(device).ranges
        # An IDE controller in its legacy mode has those of the ISA bus, and tells of none.
        return frozenset(["14", "15"] if IDE_PORTS[0] in where else listed)

    def interrupts(self) -> str:
        """The text of ``/proc/interrupts``."""
        return self._said("cat /proc/interrupts")

    def requests(self, disk: str) -> tuple[int, int]:
        """Requests that the disk was sent, and bytes, as the guest's kernel counts them."""
        words = [int(word) for word in self._said(f"cat /sys/block/{disk}/stat").split()]
        # Documentation/block/stat.rst: reads at 0, writes at 4, sectors of 512 bytes.
        return words[0] + words[4], 512 * (words[2] + words[6])

    def packets(self, card: str) -> int:
        """Packets that the card was given or gave, as the guest's kernel counts them."""
        place = f"/sys/class/net/{card}/statistics"
        return sum(map(int, self._said(f"cat {place}/tx_packets {place}/rx_packets").split()))

    @property
    def others(self) -> frozenset[str]:
        """The virtio devices that are no part of any measurement: the agent's channel."""
        return self._others

    def _background(self) -> frozenset[str]:
        with self.traced() as lines:
            self.running.ping(timeout=PATIENCE)
        if not (known := vdevs(lines)):
            hint = "it needs the trace backend 'log', or a run without counts"
            raise UnsupportedError("tracing to a file", "this QEMU", hint)
        return known

    @contextmanager
    def traced(self) -> Iterator[list[str]]:
        """A list that has, after the block, what QEMU traced in it."""
        lines: list[str] = []
        start = self._log.stat().st_size if self._log.exists() else 0
        self._trace(True)
        try:
            yield lines
        finally:
            self._trace(False)
        with self._log.open() as file:
            file.seek(start)
            lines += file

    def _trace(self, enable: bool) -> None:
        for event in EVENTS:
            arguments = {"name": event, "enable": enable}
            self.running.qmp.execute("trace-event-set-state", arguments)

    # Its life

    @property
    def pids(self) -> tuple[int, ...]:
        return (self.running.pid,)

    def command_line(self) -> list[str]:
        """The words with which QEMU was started."""
        words = Path(f"/proc/{self.running.pid}/cmdline").read_bytes().split(b"\0")
        return [word.decode(errors="replace") for word in words[:-1]]

    def last_words(self) -> str:
        """The end of what was written to its serial port."""
        end = self.running.exit
        return self.running.console.tail[-1000:] if end is None else str(end)

    def close(self) -> None:
        self.running.close()
        self._directory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<BenchGuest {self.place}: {self.running!r}>"


def _function(path: str) -> str:
    """The PCI function behind which a device of sysfs is: the last one in its path."""
    found = _PCI.findall(path)
    return found[-1] if found else ""


def _until(ask: Callable[[], T | None], what: str, lack: str) -> T:
    """What `ask` gives once it gives something; `GuestError` says what lacks else."""
    limit = time.monotonic() + PATIENCE
    while (found := ask()) is None:
        if time.monotonic() > limit:
            raise GuestError(what, f"{lack} within {PATIENCE:g} s")
        time.sleep(0.02)
    return found
