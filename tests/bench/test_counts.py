"""Counting register accesses in QEMU's trace."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pyvirt.bench import counts
from pyvirt.bench.counts import Counted, Registers
from pyvirt.bench.measure import _beyond

HERE = Registers(((0xFEB00000, 0x1000), (0xC000, 16)))


def access(address: int, name: str = "dev", kind: str = "write") -> str:
    return (
        f"memory_region_ops_{kind} cpu 0 mr 0x55aa addr {address:#x} value 0x1 size 4"
        f" name '{name}'\n"
    )


def notify(vdev: int) -> str:
    return f"virtio_queue_notify vdev {vdev:#x} n 0 vq 0x7f00\n"


def test_only_the_devices_own_registers_count() -> None:
    lines = [
        access(0xFEB00000),
        access(0xFEB00FFF, kind="read"),
        access(0xFEB01000),
        access(0xFEE000B0, "apic-msi"),
        access(0xC00F),
        access(0xC010),
    ]
    assert counts.counted(lines, HERE, frozenset()) == Counted(3, 0)


def test_a_notification_by_an_eventfd_is_an_access_too() -> None:
    assert counts.counted([notify(1), notify(2)], HERE, frozenset({"0x2"})) == Counted(1, 1)


def test_a_notification_that_was_an_access_counts_once() -> None:
    lines = [access(0xFEB00800, "virtio-pci-notify-virtio-blk"), notify(1)]
    assert counts.counted(lines, HERE, frozenset()) == Counted(1, 1)


def test_runs_are_subtracted() -> None:
    assert Counted(90, 30) - Counted(30, 10) == Counted(60, 20)


@given(st.lists(st.text()))
def test_other_lines_count_nothing(lines: list[str]) -> None:
    assert counts.counted(lines, HERE, frozenset()) == Counted()


def test_an_ide_controller_has_its_old_ports_too() -> None:
    device: dict[str, Any] = {
        "regions": [{"address": 0xC060, "size": 16}, {"address": -1, "size": 256}],
        "class_info": {"class": 0x0101},
    }
    where = counts.registers(device)
    assert 0x1F0 in where
    assert 0xC06F in where
    assert 0x1EF not in where
    assert 0 not in where


def test_devices_behind_bridges_are_found() -> None:
    inner = {"slot": 1}
    buses = [{"devices": [{"slot": 0, "pci_bridge": {"devices": [inner]}}]}]
    assert [one["slot"] for one in counts.devices_of(buses)] == [0, 1]


TABLE = """           CPU0       CPU1
  0:       1306          4   IO-APIC   2-edge      timer
 14:          3          2   IO-APIC  14-edge      ata_piix
 25:         14          0   PCI-MSI 393217-edge   virtio2-virtqueues
NMI:          9          9   Non-maskable interrupts
"""


def test_interrupts_of_all_processors_add_up() -> None:
    assert counts.interrupts(TABLE, frozenset({"14", "25"})) == 19
    assert counts.interrupts(TABLE, frozenset()) == 0
    assert counts.interrupts("", frozenset({"1"})) == 0


def test_the_longer_run_costs_more_or_is_taken_whole() -> None:
    """With requests that share notifications, it may by chance have cost less."""
    shorter, longer = (Counted(30, 10), 12, 100, 4096), (Counted(80, 20), 22, 300, 12288)
    assert _beyond(shorter, longer) == (Counted(50, 10), 10, 200, 8192)
    lucky = (Counted(25, 15), 22, 300, 12288)
    assert _beyond(shorter, lucky) == lucky
