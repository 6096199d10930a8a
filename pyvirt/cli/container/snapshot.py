"""Snapshots of kept containers."""

from __future__ import annotations

import datetime

import click

from pyvirt.cli.container.life import said
from pyvirt.cli.container.place import store
from pyvirt.cli.output import Output, json_option, table
from pyvirt.cli.progress import Progress


@click.group("snapshot", context_settings={"help_option_names": ["-h", "--help"]})
def snapshot() -> None:
    """List, create, apply or delete snapshots of a container."""


@snapshot.command("list")
@click.argument("name")
@json_option
def list_(output: Output, name: str) -> None:
    """List the snapshots of the container NAME."""
    from pyvirt.running.kept import Kept

    found = Kept.find(name, store=store()).snapshots()
    if output.json:
        taken = [{"name": each.name, "taken": each.taken} for each in found]
        output.document({"name": name, "snapshots": taken})
    elif found:
        click.echo(table([(_when(each.taken), each.name) for each in found]))


@snapshot.command("create")
@click.argument("name")
@click.argument("snapshot")
@json_option
def create(output: Output, name: str, snapshot: str) -> None:
    """Keep what the container NAME is now as SNAPSHOT."""
    from pyvirt.running.kept import Kept

    kept = Kept.find(name, store=store())
    with Progress() as progress:
        kept.snapshot(snapshot, progress=progress)
    said(output, kept, f"Took the snapshot {snapshot} of {name}.", snapshot=snapshot)


@snapshot.command("apply")
@click.argument("name")
@click.argument("snapshot")
@json_option
def apply(output: Output, name: str, snapshot: str) -> None:
    """Make the container NAME what it was at SNAPSHOT; what it is now is lost."""
    from pyvirt.running.kept import Kept

    kept = Kept.find(name, store=store())
    with Progress() as progress:
        kept.restore(snapshot, progress=progress)
    said(output, kept, f"{name} is what it was at {snapshot}.", snapshot=snapshot)


@snapshot.command("delete")
@click.argument("name")
@click.argument("snapshot")
@json_option
def delete(output: Output, name: str, snapshot: str) -> None:
    """Forget SNAPSHOT of the container NAME."""
    from pyvirt.running.kept import Kept

    kept = Kept.find(name, store=store())
    kept.remove_snapshot(snapshot)
    said(output, kept, f"Deleted the snapshot {snapshot} of {name}.", snapshot=snapshot)


def _when(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")
