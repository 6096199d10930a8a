"""``pyvirt trace``: every virtio request of a guest that runs."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyvirt.cli.output import Output, json_option

if TYPE_CHECKING:
    from pyvirt.running.rings.trace import Tracer
    from pyvirt.virtio.trace import Trace


@click.command("trace")
@click.argument("which", metavar="GUEST")
@click.argument("devices", nargs=-1, metavar="[DEVICE...]")
@click.option("--seconds", type=float, metavar="SECONDS", help="Stop after so many seconds.")
@click.option("--pcap", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write the frames of network cards, for Wireshark (pcap-ng).")  # fmt: skip
@click.option("--iolog", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write what disks did, for fio --read_iolog (version 3).")  # fmt: skip
@click.option("--snap", type=int, metavar="BYTES",
              help="Keep so many first bytes of each part of a request.")  # fmt: skip
@click.option("--interval", type=float, metavar="SECONDS",
              help="Look at the queues so often while something moves.")  # fmt: skip
@click.option("--budget", type=float, metavar="SHARE",
              help="Take at most this share of one processor.")  # fmt: skip
@click.option("--realtime/--no-realtime", default=True, show_default=True,
              help="Look with a real-time priority, where that is allowed.")  # fmt: skip
@json_option
def command(
    output: Output,
    which: str,
    devices: tuple[str, ...],
    seconds: float | None,
    pcap: Path | None,
    iolog: Path | None,
    **terms: Any,
) -> int:
    """Show every virtio request of GUEST, which goes on as before.

    GUEST is the name of the VM or the pid of a "pyvirt run" of yours, or the socket of a QEMU's
    monitor on this host; DEVICE is an id of its description ("disk0", "nic0"). Ctrl-C ends it,
    and so does the end of the guest. What could not be seen is counted at the end.
    """
    from pyvirt.cli.guests import attach
    from pyvirt.running.rings.trace import Terms

    given = {name: value for name, value in terms.items() if value is not None}
    if pcap is not None:
        given.setdefault("snap", 65536)
    shown = not output.json and pcap is None and iolog is None
    with ExitStack() as stack:
        guest = stack.enter_context(attach(which))
        wanted = Terms(**given, keep=not shown)
        tracer = guest.trace(*devices, terms=wanted)
        stack.enter_context(tracer)
        _follow(tracer, seconds, shown)
        trace = tracer.stop()
    if pcap is not None:
        trace.pcapng(pcap)
    if iolog is not None:
        trace.iolog(iolog)
    _tell(output, tracer, trace)
    return 0


def _follow(tracer: Tracer, seconds: float | None, shown: bool) -> None:
    """Until the time is over, the guest ends, or somebody has seen enough."""
    until = None if seconds is None else time.monotonic() + seconds
    try:
        while not tracer.over and (until is None or time.monotonic() < until):
            left = 0.5 if until is None else min(0.5, until - time.monotonic())
            tracer.wait(max(0.0, left))
            if shown:
                for request in tracer.batch():
                    click.echo(str(request))
    except KeyboardInterrupt:
        return


def _tell(output: Output, tracer: Tracer, trace: Trace) -> None:
    from attrs import asdict

    counts = tracer.counts()
    if not output.json:
        done = sum(one.done for one in counts)
        click.echo(f"{done} requests in {trace.seconds:.1f} s, {trace.lost}", err=True)
        return
    queues = zip(tracer.queues, counts, strict=True)
    output.document(
        {
            "seconds": trace.seconds,
            "ended": tracer.why,
            "lost": asdict(trace.lost),
            "queues": [
                {"device": queue.device, "kind": queue.kind, "queue": queue.index,
                 "name": queue.name, **asdict(one)}
                for queue, one in queues
            ],
            "requests": [str(request) for request in trace],
        }
    )  # fmt: skip
