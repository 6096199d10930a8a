"""``pyvirt bench``: measure virtual devices on this host, and compare what came out."""

from __future__ import annotations

import click

from pyvirt.cli.bench.look import compare, show
from pyvirt.cli.bench.measure import all_, disk, net


@click.group("bench", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Measure virtio and the devices it replaces, in real guests on this host.

    fio and iperf3 run in a guest; the devices that are compared take turns, round by round.
    Results are kept in a file after each round, and Ctrl-C ends a run without losing any.
    """


for each in (disk, net, all_, compare, show):
    command.add_command(each)
