"""Kept containers are copied, called otherwise, and carried elsewhere."""

from __future__ import annotations

import click

from pyvirt.cli.container.life import said
from pyvirt.cli.container.place import store
from pyvirt.cli.output import Output, json_option
from pyvirt.cli.progress import Progress


@click.command("clone")
@click.argument("name")
@click.argument("clones", nargs=-1, required=True, metavar="CLONE...")
@click.option("--overlay", is_flag=True, help="Share what does not change from now on.")
@json_option
def clone(output: Output, name: str, clones: tuple[str, ...], overlay: bool) -> None:
    """Make a container CLONE, or several, like NAME."""
    from pyvirt.running.kept import Kept

    kept = Kept.find(name, store=store())
    with Progress() as progress:
        kept.clones(clones, overlay=overlay, progress=progress)
    said(output, kept, f"Cloned {name}: {', '.join(clones)}.", clones=list(clones))


@click.command("rename")
@click.argument("name")
@click.argument("new")
@json_option
def rename(output: Output, name: str, new: str) -> None:
    """Call the container NAME from now on NEW."""
    from pyvirt.running.kept import Kept

    said(output, Kept.find(name, store=store()).rename(new), f"{name} is called {new}.")


@click.command("export")
@click.argument("name")
@click.argument("file", type=click.Path())
@json_option
def export(output: Output, name: str, file: str) -> None:
    """Write the container NAME with its description to FILE, a .tar.zst."""
    from pyvirt.running.kept import Kept

    kept = Kept.find(name, store=store())
    with Progress() as progress:
        path = kept.export(file, progress=progress)
    said(output, kept, f"Exported {name} to {path}.", path=str(path))


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.argument("name", required=False)
@click.option("--devices", is_flag=True, help="Make the device nodes that are in it.")
@click.option("--limit", default="32G", show_default=True, metavar="SIZE",
              help="How much it may unpack to.")  # fmt: skip
@json_option
def import_(output: Output, file: str, name: str | None, devices: bool, limit: str) -> None:
    """Make the container that "export" wrote to FILE, called NAME or as it was."""
    from pyvirt.running.kept import Kept

    with Progress() as progress:
        kept = Kept.import_(
            file, name, devices=devices, limit=limit, store=store(), progress=progress
        )
    said(output, kept, f"Imported {kept.name}.")
