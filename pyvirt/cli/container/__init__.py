"""``pyvirt container``: make containers, run in them, keep them."""

from __future__ import annotations

import click

from pyvirt.cli.container.carry import clone, export, import_, rename
from pyvirt.cli.container.inside import exec_, run
from pyvirt.cli.container.life import autostart, create, destroy, prune, start, stop
from pyvirt.cli.container.look import info, list_
from pyvirt.cli.container.place import given
from pyvirt.cli.container.snapshot import snapshot


@click.group("container", context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--store", metavar="DIRECTORY", callback=given, expose_value=False,
    type=click.Path(file_okay=False, resolve_path=True),
    help="Where containers live; by default $PYVIRT_STORE, else "
         "/var/lib/pyvirt/containers for root and ~/.local/state/pyvirt/containers for others.",
)  # fmt: skip
def command() -> None:
    """Make containers, run in them, keep them.

    What "create" makes is kept: it can be started, stopped, copied and put back to what it
    was, until "destroy". What "run" makes is gone when its command has ended.
    """


for each in (
    create, run, start, stop, exec_, list_, info, snapshot, clone, rename, export, import_,
    destroy, prune, autostart,
):  # fmt: skip
    command.add_command(each)
