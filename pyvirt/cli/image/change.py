"""Images that are changed: ``resize``, ``commit``, ``rebase``, ``amend``, ``recover``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pyvirt.cli.image.options import FILE, amend_options, said, written_format
from pyvirt.cli.output import Output, json_option
from pyvirt.cli.progress import Progress

_key = click.option("--key-file", type=FILE, metavar="PATH", help="A file with the passphrase.")


def _secret(key_file: str | None) -> Path | None:
    return None if key_file is None else Path(key_file)


@click.command("resize")
@click.argument("file", type=FILE)
@click.argument("size")
@written_format
@click.option("--shrink", is_flag=True, help="Allow less than now; what lies beyond is lost.")
@click.option(
    "--preallocation", metavar="MODE", help="How to set aside what is added: off, metadata, "
    "falloc or full.",
)
@_key
@json_option
def resize(output: Output, file: str, size: str, key_file: str | None, **more: Any) -> None:
    """Make the disk in FILE so large ("20G"), or larger by that much ("+10G")."""  # fmt: skip
    from pyvirt import image

    with Progress() as progress:
        written = image.resize(file, size, key=_secret(key_file), progress=progress, **more)
    said(output, written)


@click.command("commit")
@click.argument("file", type=FILE)
@written_format
@click.option("-b", "--base", type=FILE, metavar="FILE", help="Down to this image of the chain.")
@click.option("-d", "--keep", is_flag=True, help="Leave FILE as it is, and do not empty it.")
@click.option("-r", "--rate", metavar="SIZE", help="Copy at most so many bytes a second.")
@json_option
def commit(output: Output, file: str, format: str, keep: bool, **more: Any) -> None:
    """Move what FILE holds into its backing image, or into the --base further down."""
    from pyvirt import image

    with Progress() as progress:
        written = image.commit(file, format, empty=not keep, progress=progress, **more)
    said(output, written)


@click.command("rebase")
@click.argument("file", type=FILE)
@click.option("-b", "--backing", metavar="FILE", help="The image below from now on.")
@click.option("-F", "--backing-format", metavar="FORMAT", help="The format of that image.")
@click.option("--flat", is_flag=True, help="No image below: copy all that it gives.")
@click.option(
    "-u", "--unsafe", is_flag=True, help="Believe that the new one holds what the old one held."
)
@written_format
@json_option
def rebase(
    output: Output, file: str, backing: str | None, flat: bool, unsafe: bool, **more: Any
) -> None:
    """Lay FILE over another backing image, or over none."""
    from pyvirt import image

    if flat == (backing is not None):
        raise click.UsageError("Give either --backing or --flat.")
    more["backing_format"] = more["backing_format"] or None
    with Progress() as progress:
        written = image.rebase(file, backing, safe=not unsafe, progress=progress, **more)
    said(output, written)


@click.command("amend")
@click.argument("file", type=FILE)
@click.option(
    "-o", "options", multiple=True, required=True, metavar="NAME=VALUE",
    help="What to change (compat=v3, lazy_refcounts=on); more with commas, or again.",
)
@written_format
@_key
@json_option
def amend(
    output: Output, file: str, options: tuple[str, ...], format: str, key_file: str | None
) -> None:
    """Change the options of FILE."""  # fmt: skip
    from pyvirt import image

    changes = amend_options(format, options)
    with Progress() as progress:
        written = image.amend(file, format, key=_secret(key_file), progress=progress, **changes)
    said(output, written)


@click.command("recover")
@click.argument("file", type=FILE)
@written_format
@json_option
def recover(output: Output, file: str, format: str) -> None:
    """Finish a change of FILE that was cut short; every other change does it as well."""
    from pyvirt import image
    from pyvirt.errors import shown

    found = image.recover(file, format)
    if output.json:
        output.document({"path": file, "recovered": found})
    else:
        click.echo(f"{shown(file)}: {'finished' if found else 'nothing was cut short'}")
