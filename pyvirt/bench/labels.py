"""Words that stand with figures: quantities, where they come from, what they do and don't say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pyvirt.bench.confidence import LEVEL, METHOD
from pyvirt.virtio.quantities import amount, duration, number

if TYPE_CHECKING:
    from pyvirt.bench.results import Results

ACCELERATORS = {
    "tcg": "TCG: processors emulated, not KVM",
    "kvm": "KVM",
}

#: What figures taken under an accelerator say about others.
SAYING = {
    "tcg": (
        "Measured under TCG, which translates the guest's instructions: times are those of an "
        "emulated processor, many times slower than KVM's, and a register access costs no exit. "
        "Throughputs, latencies and their ratios do not carry over to a KVM host. Accesses per "
        "request of a disk do: there each is an exit to pay for. Those of a network depend on how "
        "many packets a notification finds, and so on the speed of everything."
    ),
    "kvm": (
        "Measured under KVM, where each access to a register is an exit of the processor from "
        "the guest; a notification taken by an ioeventfd is a cheap one."
    ),
}
_UNKNOWN = "Which accelerator a figure was taken under is not told: take none for KVM's or TCG's."

BUSY = "* (hollow dots): rounds in which something else used the host, or slowed it down."


def accelerator(meta: Mapping[str, Any]) -> str:
    """The label of every table and picture: "TCG: processors emulated, not KVM"."""
    name = str(meta.get("accelerator", "unknown"))
    return ACCELERATORS.get(name, f"accelerator {name}")


def saying(meta: Mapping[str, Any]) -> str:
    """What the figures say about a KVM host, and what not."""
    return SAYING.get(str(meta.get("accelerator")), _UNKNOWN)


def source(meta: Mapping[str, Any]) -> str:
    """In a line where the figures come from."""
    host = meta.get("host")
    host = host if isinstance(host, Mapping) else {}
    cpus = f"{host['cpus']} x {host.get('cpu')}" if "cpus" in host else host.get("cpu")
    pieces = [
        cpus,
        host.get("kernel"),
        _named("QEMU", meta.get("qemu")),
        _named("guest Linux", meta.get("guest kernel")),
        _named("pyvirt", meta.get("pyvirt")),
        str(meta.get("started") or "")[:10],
    ]
    return ", ".join(str(piece) for piece in pieces if piece) or "unknown host"


def _named(name: str, value: object) -> str | None:
    return f"{name} {value}" if value else None


def notes(results: Results) -> Iterator[str]:
    """The sentences under every table and picture."""
    yield saying(results.meta)
    yield METHOD
    if any(one.confidence < LEVEL for one in results.ratios(None)):
        yield f"Fewer than 6 rounds give less than {LEVEL * 100:.0f} %: headings say how much."
    if any(row.busy for row in results.rows):
        yield BUSY
    if results.meta.get("cancelled"):
        yield "The run was cancelled: rounds are missing."


def quantity(value: float, unit: str, *, network: bool = False) -> str:
    """A figure as people read it: "1.2 GiB/s", "690 Mbit/s", "85.2 µs"."""
    if unit == "B/s":
        return f"{_bits(8 * value)}bit/s" if network else f"{amount(value)}/s"
    if unit == "1/s":
        return f"{number(value)}/s"
    if unit == "s":
        return duration(value)
    return amount(value) if unit == "B" else _plain(value)


def span(low: float, high: float, unit: str, *, network: bool = False) -> str:
    """From one figure to another: "182 to 203 MiB/s"."""
    first, last = (quantity(value, unit, network=network) for value in (low, high))
    number, _, said = first.partition(" ")
    return f"{number} to {last}" if said and last.endswith(f" {said}") else f"{first} to {last}"


def _bits(count: float) -> str:
    said = number(count)
    return said if said[-1:].isalpha() else f"{said} "


def _plain(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
