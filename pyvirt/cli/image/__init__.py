"""``pyvirt image``: look into disk images, make them, change them."""

from __future__ import annotations

import click

from pyvirt.cli.image.change import amend, commit, rebase, recover, resize
from pyvirt.cli.image.inside import bitmap, snapshot
from pyvirt.cli.image.judge import check, compare, inspect, measure
from pyvirt.cli.image.look import info, map_, read
from pyvirt.cli.image.make import compact, convert, create


@click.group("image", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Look into disk images, make them, change them.

    What only reads runs no QEMU, and opens no other file than the one named unless --trust
    allows it. What writes is done by qemu-img, whole or not at all, and never guesses a
    format: it is qcow2 unless said.
    """


for each in (
    info, map_, check, compare, measure, read, inspect,
    create, convert, compact, resize, snapshot, bitmap, commit, rebase, amend, recover,
):  # fmt: skip
    command.add_command(each)
