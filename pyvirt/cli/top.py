"""``pyvirt top``: what the virtqueues of running guests do, as a table that moves."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any

import click

from pyvirt.cli.output import Output, json_option, size, table

if TYPE_CHECKING:
    from pyvirt.running.rings.attached import Attached
    from pyvirt.running.rings.trace import Counts, Tracer

_TITLES = ("GUEST", "DEVICE", "QUEUE", "DEPTH", "REQUESTS/S", "OUT/S", "IN/S", "MISSED")


@click.command("top")
@click.argument("which", nargs=-1, metavar="[GUEST...]")
@click.option("--every", type=click.FloatRange(min=0.1), default=1.0, show_default=True,
              metavar="SECONDS", help="How long one picture stands.")  # fmt: skip
@click.option("--times", type=click.IntRange(min=1), metavar="N", help="Show so many pictures.")
@click.option("--all", "idle", is_flag=True, help="Show queues that do nothing, too.")
@json_option
def command(
    output: Output, which: tuple[str, ...], every: float, times: int | None, idle: bool
) -> int:
    """Show what the virtqueues of running guests do: depth, requests and bytes each second.

    GUEST is the name of the VM or the pid of a "pyvirt run" of yours, or the socket of a QEMU's
    monitor on this host; without one, all guests of "pyvirt run" are shown, and those that
    programs started with pyvirt.findable(). OUT is what the guest sends or writes, IN what it
    gets or reads. Ctrl-C ends it.
    """
    from pyvirt.cli.guests import attach, everyone

    with ExitStack() as stack:
        guests = [attach(one) for one in which] or everyone()
        for guest in guests:
            stack.callback(guest.close)
        if not guests:
            raise click.UsageError('No guest of "pyvirt run" is there; name a monitor\'s socket.')
        watched = [(guest, stack.enter_context(_watch(guest))) for guest in guests]
        try:
            _show(output, watched, every, times if times or not output.json else 1, idle)
        except KeyboardInterrupt:
            return 0
    return 0


def _watch(guest: Attached) -> Tracer:
    """A tracer that only counts, and looks less often than one that describes."""
    from pyvirt.running.rings.trace import Terms

    return guest.trace(terms=Terms(interval=0.001, budget=0.05, buffer=8192), recorded=False)


def _show(
    output: Output,
    watched: Sequence[tuple[Attached, Tracer]],
    every: float,
    times: int | None,
    idle: bool,
) -> None:
    before = [tracer.counts() for _, tracer in watched]
    for number in count(1):
        time.sleep(every)
        rows = list(_rows(watched, before, every, idle))
        before = [tracer.counts() for _, tracer in watched]
        if output.json:
            output.document(rows)
        else:
            if sys.stdout.isatty():
                click.clear()
            click.echo(table([_TITLES, *map(_cells, rows)]))
        if number == times or all(tracer.over for _, tracer in watched):
            return


def _rows(
    watched: Sequence[tuple[Attached, Tracer]],
    before: Sequence[Sequence[Counts]],
    every: float,
    idle: bool,
) -> Iterator[dict[str, Any]]:
    for (guest, tracer), then in zip(watched, before, strict=True):
        for queue, old, new in zip(tracer.queues, then, tracer.counts(), strict=True):
            if idle or new.made:
                yield {
                    "guest": guest.name,
                    "device": queue.device,
                    "queue": queue.name,
                    "depth": new.depth,
                    "requests": (new.done - old.done) / every,
                    "readable": (new.readable - old.readable) / every,
                    "writable": (new.writable - old.writable) / every,
                    "missed": new.lost,
                }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["guest"], row["device"], row["queue"], str(row["depth"]), f"{row['requests']:.0f}",
        size(round(row["readable"])), size(round(row["writable"])), str(row["missed"]),
    )  # fmt: skip
