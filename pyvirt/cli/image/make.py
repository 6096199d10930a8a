"""Images that are made: ``create``, ``convert``, ``compact``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pyvirt.cli.image.options import FILE, create_options, creation, said
from pyvirt.cli.output import Output, json_option
from pyvirt.cli.progress import Progress


@click.command("create")
@click.argument("file", type=click.Path())
@click.argument("size", required=False)
@click.option(
    "-f", "--format", default="qcow2", show_default=True, metavar="FORMAT", help="Its format."
)
@creation
@json_option
def create(
    output: Output,
    file: str,
    size: str | None,
    format: str,
    options: tuple[str, ...],
    encrypt: str | None,
    **more: Any,
) -> None:
    """Make an image of SIZE ("10G"); over --backing, SIZE may be left out."""
    from pyvirt import image

    chosen = create_options(format, options, encrypt)
    with Progress() as progress:
        written = image.create(file, size, chosen, progress=progress, **more)
    said(output, written)


@click.command("convert")
@click.argument("source", type=FILE)
@click.argument("target", type=click.Path())
@click.option(
    "-f", "--source-format", default="qcow2", show_default=True, metavar="FORMAT",
    help="The format of SOURCE.",
)
@click.option(
    "-O", "--format", default="qcow2", show_default=True, metavar="FORMAT",
    help="The format of TARGET.",
)
@creation
@click.option("--key-file", type=FILE, metavar="PATH", help="A file with SOURCE's passphrase.")
@click.option("--snapshot", metavar="NAME", help="Copy this snapshot in SOURCE.")
@click.option("-c", "--compress", is_flag=True, help="Compress what is copied.")
@click.option("-m", "--threads", type=int, metavar="N", help="So many requests at once (1 to 16).")
@click.option("-W", "--out-of-order", is_flag=True, help="Write what is read first.")
@click.option("-S", "--sparse", metavar="SIZE", help="So many zeros in a row become a hole.")
@click.option("-r", "--rate", metavar="SIZE", help="Copy at most so many bytes a second.")
@click.option("--bitmaps", is_flag=True, help="Copy persistent bitmaps, too.")
@click.option("--skip-broken-bitmaps", is_flag=True, help="Leave broken ones out.")
@click.option("--salvage", is_flag=True, help="Take what cannot be read for zeros.")
@click.option("-U", "--shared", is_flag=True, help="Read SOURCE even if a QEMU is writing it.")
@json_option
def convert(
    output: Output,
    source: str,
    target: str,
    format: str,
    options: tuple[str, ...],
    encrypt: str | None,
    key_file: str | None,
    **more: Any,
) -> None:
    """Copy the disk in SOURCE to a new image TARGET."""  # fmt: skip
    from pyvirt import image

    chosen = create_options(format, options, encrypt)
    key = None if key_file is None else Path(key_file)
    with Progress() as progress:
        written = image.convert(source, target, chosen, key=key, progress=progress, **more)
    said(output, written)


@click.command("compact")
@click.argument("file", type=FILE)
@click.option("-c", "--compress", is_flag=True, help="Compress it as well.")
@json_option
def compact(output: Output, file: str, compress: bool) -> None:
    """Write a qcow2 FILE anew without what it no longer uses."""
    from pyvirt import image

    with Progress() as progress:
        written = image.compact(file, compress=compress, progress=progress)
    said(output, written)
