"""Kept containers are made, started, stopped and destroyed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pyvirt.cli.container.describe import container_of, container_options
from pyvirt.cli.container.place import store
from pyvirt.cli.output import Output, json_option
from pyvirt.cli.progress import Progress

if TYPE_CHECKING:
    from pyvirt.running.kept import Kept


@click.command("create")
@click.argument("name")
@container_options
@json_option
def create(output: Output, name: str, **given: Any) -> None:
    """Make the container NAME; it is not started."""
    from pyvirt.running.kept import Kept

    container = container_of(name, given)
    with Progress() as progress:
        kept = Kept.create(container, store=store(), progress=progress)
    said(output, kept, f"Created {name}.")


@click.command("start")
@click.argument("name")
@json_option
def start(output: Output, name: str) -> None:
    """Start the container NAME; it runs until "stop"."""
    from pyvirt.running.kept import Kept

    kept = Kept.find(name, store=store())
    with Progress() as progress, kept.start(progress=progress, detach=True) as running:
        pid = running.pid
    said(output, kept, f"Started {name}, process {pid}.", pid=pid)


@click.command("stop")
@click.argument("name")
@click.option("--timeout", type=float, default=30.0, show_default=True, metavar="SECONDS",
              help="Kill it when it has not ended by then.")  # fmt: skip
@json_option
def stop(output: Output, name: str, timeout: float) -> None:
    """End the container NAME."""
    from pyvirt.running.kept import Kept

    kept = Kept.find(name, store=store())
    end = kept.stop(timeout=timeout)
    text = f"{name} does not run." if end is None else f"Stopped {name}: {end}."
    said(output, kept, text, end=None if end is None else str(end))


@click.command("destroy")
@click.argument("name")
@click.option("--force", is_flag=True, help="Kill it first when it runs.")
@json_option
def destroy(output: Output, name: str, force: bool) -> None:
    """Remove the container NAME with its snapshots."""
    from pyvirt.running.kept import Kept

    kept = Kept.find(name, store=store())
    if force:
        kept.stop(timeout=0.0)
    kept.destroy()
    if output.json:
        output.document({"name": name, "state": "destroyed"})
    else:
        click.echo(f"Destroyed {name}.")


@click.command("autostart")
@click.option("--group", metavar="GROUP", help="Only those of this group.")
@json_option
def autostart(output: Output, group: str | None) -> None:
    """Start the kept containers that are to start with this host, in their order.

    It is for a unit of the host's init; those that run already are left alone.
    """
    from pyvirt.running.kept import autostart

    with Progress() as progress:
        started = list(autostart(store(), group, progress=progress))
    if output.json:
        output.document({"started": started})
    else:
        click.echo(f"Started {', '.join(started) or 'none'}.")


@click.command("prune")
@click.option("--unused-for", type=click.FloatRange(0), default=30.0, show_default=True,
              metavar="DAYS", help="Only what nobody used for so long.")  # fmt: skip
@json_option
def prune(output: Output, unused_for: float) -> None:
    """Remove the root file systems that containers shared and none is over any longer."""
    from pyvirt.running.kept import prune

    gone = prune(store(), days=unused_for)
    if output.json:
        output.document({"removed": [str(each) for each in gone]})
    else:
        click.echo(f"Removed {len(gone)}.")


def said(output: Output, kept: Kept, text: str, **facts: Any) -> None:
    """What was done to a container."""
    if output.json:
        output.document({"name": kept.name, "state": kept.state, **facts})
    else:
        click.echo(text)
