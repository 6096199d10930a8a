"""What lies inside a qcow2 image: ``snapshot`` and ``bitmap``."""

from __future__ import annotations

import datetime

import attrs
import click

from pyvirt.cli.image.options import FILE, said
from pyvirt.cli.output import Output, json_option, size, table

_HELP = {"help_option_names": ["-h", "--help"]}


@click.group("snapshot", context_settings=_HELP)
def snapshot() -> None:
    """List, create, apply or delete snapshots inside a qcow2 image."""


@snapshot.command("list")
@click.argument("file", type=FILE)
@json_option
def list_(output: Output, file: str) -> None:
    """List the snapshots in FILE."""
    from pyvirt import image
    from pyvirt.errors import shown

    found = image.snapshot_list(file)
    if output.json:
        output.document({"path": file, "snapshots": [attrs.asdict(one) for one in found]})
    elif found:
        rows: list[tuple[str, ...]] = [
            (shown(one.id), _when(one.date), size(one.vm_state).rjust(8), shown(one.name))
            for one in found
        ]
        click.echo(table(rows))


@snapshot.command("create")
@click.argument("file", type=FILE)
@click.argument("name")
@json_option
def create(output: Output, file: str, name: str) -> None:
    """Keep what FILE holds now as the snapshot NAME."""
    from pyvirt import image

    said(output, image.snapshot_create(file, name))


@snapshot.command("apply")
@click.argument("file", type=FILE)
@click.argument("name")
@json_option
def apply(output: Output, file: str, name: str) -> None:
    """Make FILE what it was at the snapshot NAME; what it is now is lost."""
    from pyvirt import image

    said(output, image.snapshot_apply(file, name))


@snapshot.command("delete")
@click.argument("file", type=FILE)
@click.argument("name")
@json_option
def delete(output: Output, file: str, name: str) -> None:
    """Forget the snapshot NAME."""
    from pyvirt import image

    said(output, image.snapshot_delete(file, name))


@click.group("bitmap", context_settings=_HELP)
def bitmap() -> None:
    """Add, remove, merge or switch persistent bitmaps of a qcow2 image."""


@bitmap.command("add")
@click.argument("file", type=FILE)
@click.argument("name")
@click.option("-g", "--granularity", metavar="SIZE", help="What one bit stands for (64K).")
@click.option("--disabled", is_flag=True, help="It notes no writes until it is enabled.")
@json_option
def add(output: Output, file: str, name: str, granularity: str | None, disabled: bool) -> None:
    """Give FILE the bitmap NAME."""
    from pyvirt import image

    added = image.bitmap_add(file, name, granularity=granularity, enabled=not disabled)
    said(output, added)


@bitmap.command("merge")
@click.argument("file", type=FILE)
@click.argument("name")
@click.argument("sources", nargs=-1, required=True)
@click.option("-b", "--source-image", type=FILE, metavar="FILE", help="Where SOURCES are.")
@click.option("-F", "--source-format", metavar="FORMAT", help="The format of that image.")
@json_option
def merge(
    output: Output,
    file: str,
    name: str,
    sources: tuple[str, ...],
    source_image: str | None,
    source_format: str | None,
) -> None:
    """Add the bits of the bitmaps SOURCES to NAME."""
    from pyvirt import image

    merged = image.bitmap_merge(
        file, name, sources, source_image=source_image, source_format=source_format
    )
    said(output, merged)


def _when(seconds: float) -> str:
    """Local time, to the second."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC).astimezone()
    return moment.isoformat(" ", "seconds")


def _simple(verb: str, words: str) -> click.Command:
    """A command that does `verb` to one bitmap."""

    @bitmap.command(verb, help=words, short_help=words)
    @click.argument("file", type=FILE)
    @click.argument("name")
    @json_option
    def act(output: Output, file: str, name: str) -> None:
        from pyvirt import image

        said(output, getattr(image, f"bitmap_{verb}")(file, name))

    return act


_simple("remove", "Take the bitmap NAME away from FILE.")
_simple("clear", "Have the bitmap NAME say that nothing was written.")
_simple("enable", "Have the bitmap NAME note writes from now on.")
_simple("disable", "Have the bitmap NAME stay as it is.")
