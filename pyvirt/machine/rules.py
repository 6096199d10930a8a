"""What board, processors and memory allow only together."""

from __future__ import annotations

from pyvirt.errors import SpecError
from pyvirt.machine.cpu import CPU
from pyvirt.machine.machine import Machine
from pyvirt.machine.memory import Memory


def check(machine: Machine, cpus: CPU, memory: Memory) -> None:
    """Raise `SpecError` for a combination that QEMU refuses, or takes and then ignores."""
    if machine.family == "none" and cpus.most > 1:
        raise SpecError("cpus.count", "must be 1: machine none has no more", cpus.most)
    if machine.family in ("none", "microvm"):
        _check_plugging(machine, cpus, memory)
    for number, node in enumerate(memory.nodes):
        for cpu in node.cpus:
            if cpu >= cpus.most:
                reason = f"must be below {cpus.most}, the most vCPUs there can be"
                raise SpecError(f"memory.nodes[{number}].cpus", reason, cpu)
    if memory.nodes and not any(node.cpus for node in memory.nodes):
        raise SpecError("memory.nodes", "must give a vCPU to at least one node", memory.nodes)
    if memory.hmat and not machine.hmat:
        raise SpecError("machine.hmat", "must be True for memory.hmat", machine.hmat)


def _check_plugging(machine: Machine, cpus: CPU, memory: Memory) -> None:
    """QEMU accepts room for more on these boards, and then has no way to plug it."""
    if cpus.most > cpus.count:
        raise SpecError("cpus.maximum", f"is of no use on {machine.type}", cpus.maximum)
    if memory.slots:
        raise SpecError("memory.slots", f"are of no use on {machine.type}", memory.slots)
