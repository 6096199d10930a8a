"""Images that are looked into: ``info``, ``map``, ``read``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import attrs
import click

from pyvirt.cli.image.options import FILE, opened, reading
from pyvirt.cli.output import Output, json_option, size, table

if TYPE_CHECKING:
    from pyvirt.image import Extents, Info

_PIECE = 1 << 20
#: The names of all feature bits, set or not, are for programs.
_LEGEND = re.compile(r"header\.feature_names\.")


@click.command("info")
@click.argument("file", type=FILE)
@reading
@click.option("--chain", is_flag=True, help="All images below as well (with --trust).")
@json_option
def info(output: Output, file: str, chain: bool, **how: Any) -> None:
    """Say what FILE is: its format, its sizes, and all that its header says."""
    with opened(file, **how) as image:
        described = [_described(one) for one in (image.infos if chain else (image.info,))]
    if output.json:
        output.document(described if chain else described[0])
        return
    for number, one in enumerate(described):
        click.echo(("\n" if number else "") + _text(one))


def _described(info: Info) -> dict[str, Any]:
    held = {"held_by": str(info.held), "torn": info.torn} if info.held else {}
    return {
        "path": info.path,
        "format": info.format,
        "size": info.size,
        "file_size": info.file_size,
        "allocated": info.allocated,
        **({"matches": plain(info.matches)} if info.matches else {}),
        **held,
        "references": plain(info.references),
        **_features(info),
        "info": plain(info.facts),
    }


def _features(info: Info) -> dict[str, Any]:
    """The names of what the header of a qcow2 image has as bits."""
    header = getattr(info.facts, "header", None)
    names = getattr(header, "features", ()) if info.format == "qcow2" else ()
    return {"features": list(names)} if names else {}


def _text(one: dict[str, Any]) -> str:
    from pyvirt.errors import shown

    rows: list[tuple[str, ...]] = [
        (shown(one["path"]), ""),
        ("format", one["format"]),
        ("size", f"{size(one['size'])} ({one['size']} bytes)"),
        ("file size", f"{size(one['file_size'])} ({one['file_size']} bytes)"),
    ]
    if one["allocated"] is not None:
        rows.append(("on the host", f"{size(one['allocated'])} ({one['allocated']} bytes)"))
    if "features" in one:
        rows.append(("features", shown(", ".join(one["features"]))))
    if "held_by" in one:
        rows.append(("held by", f"{shown(one['held_by'])}: what is read may be torn"))
    for match in [each for each in one.get("matches", [])[1:] if each["confidence"] > 1]:
        rows.append(("could also be", f"{match['format']}: {shown(match['reason'])}"))
    for reference in one["references"]:
        known = f" ({shown(reference['format'])})" if reference["format"] else ""
        rows.append((reference["kind"], shown(reference["name"]) + known))
    rows += [(key, shown(value)) for key, value in _flat(one["info"]) if not _LEGEND.match(key)]
    return "\n".join(line.rstrip() for line in table(rows).splitlines())


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested facts as rows: ``header.cluster_bits``; what says nothing is left out."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    elif value not in (None, ""):
        yield prefix, value
    for key, item in items:
        yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))


def plain(value: Any) -> Any:
    """A value of ours as JSON has it: attrs classes as objects, bytes in hexadecimal."""
    if attrs.has(type(value)):
        fields = attrs.fields(type(value))
        return {each.name: plain(getattr(value, each.name)) for each in fields if each.repr}
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, PurePath):
        return plain(str(value))
    if isinstance(value, Sequence | set | frozenset):
        return [plain(item) for item in value]
    return value if isinstance(value, int | float | None) else str(value)


def _key(key: Any) -> str:
    return ".".join(map(str, key)) if isinstance(key, tuple) else str(key)


@click.command("map")
@click.argument("file", type=FILE)
@reading
@click.option("--snapshot", metavar="NAME", help="Of this snapshot inside FILE.")
@click.option("--chain/--layer", default=False, help="The whole chain, or FILE alone.")
@click.option("--start", metavar="SIZE", default="0", help="From this byte of the disk.")
@click.option("--length", metavar="SIZE", help="So much of the disk.")
@click.option("--bitmap", metavar="NAME", help="What this persistent bitmap in FILE marks.")
@click.option("--svg", type=click.Path(), metavar="PATH", help="Draw a picture instead.")
@click.option("--png", type=click.Path(), metavar="PATH", help="The same; needs cairosvg.")
@json_option
def map_(
    output: Output,
    file: str,
    snapshot: str | None,
    chain: bool,
    start: str,
    length: str | None,
    bitmap: str | None,
    svg: str | None,
    png: str | None,
    **how: Any,
) -> None:
    """List what of the disk in FILE is stored, and where.

    With --json, the text of "qemu-img map --output=json". With --bitmap, list what a bitmap of a
    qcow2 image says was written to.
    """
    from pyvirt.fields import size as bytes_of

    if bitmap is not None and (svg or png or snapshot):
        raise click.UsageError("--bitmap lists ranges of the disk itself, and draws nothing.")
    first = bytes_of(start, "start")
    with opened(file, **how, snapshot=snapshot) as image:
        stop = image.size if length is None else first + bytes_of(length, "length")
        if bitmap is not None:
            _list_dirty(output, image.dirty(bitmap), first, stop)
            return
        if svg is not None:
            _draw(svg, image.map_svg(chain=chain).encode())
        if png is not None:
            _draw(png, image.map_png(chain=chain))
        if svg or png:
            return
        extents = image.extents(first, stop, chain=chain)
        if output.json:
            click.echo(extents.json(), nl=False)
        else:
            _print(extents)


def _list_dirty(output: Output, found: Extents, start: int, stop: int) -> None:
    """What of the marked ranges lies in bytes [start, stop)."""
    cut = [one.between(start, stop) for one in found if one.start < stop and one.end > start]
    if output.json:
        output.document([{"start": one.start, "length": one.length} for one in cut])
        return
    click.echo(f"{'start':>16}  {'length':>16}")
    for one in cut:
        click.echo(f"{one.start:>16}  {one.length:>16}")


def _draw(path: str, picture: bytes) -> None:
    from pyvirt.errors import shown

    with open(path, "wb") as file:
        file.write(picture)
    click.echo(f"{shown(path)}: {size(len(picture))}")


def _print(extents: Extents) -> None:
    click.echo(f"{'start':>16}  {'length':>16}  {'host':>16}  depth  what")
    for extent in extents:
        flags = extent.flags
        words = [str(one.name).lower() for one in type(flags) if one in flags]
        what = [word for word in words if word != "offset"]
        host = str(extent.host) if flags & type(flags).OFFSET or extent.compressed else "-"
        click.echo(
            f"{extent.start:>16}  {extent.length:>16}  {host:>16}  {extent.depth:>5}  "
            f"{', '.join(what) or 'nothing'}"
        )


@click.command("read")
@click.argument("file", type=FILE)
@reading
@click.option("--snapshot", metavar="NAME", help="From this snapshot inside FILE.")
@click.option("--offset", metavar="SIZE", default="0", help="From this byte of the disk.")
@click.option("--size", "length", metavar="SIZE", help="So many bytes; else all.")
def read(
    file: str, snapshot: str | None, offset: str, length: str | None, **how: Any
) -> None:
    """Write what the disk in FILE holds to standard output."""
    from pyvirt.fields import size as bytes_of

    if sys.stdout.isatty():
        raise click.UsageError("A disk is nothing for a terminal; lead the output elsewhere.")
    place = bytes_of(offset, "offset")
    with opened(file, **how, snapshot=snapshot) as image:
        end = image.size if length is None else min(image.size, place + bytes_of(length, "size"))
        while place < end:
            data = image.read(place, min(_PIECE, end - place))
            _write(data)
            place += len(data)


def _write(data: bytes) -> None:
    """Everything to standard output, whatever click made of it."""
    stream = sys.stdout.buffer
    stream.write(data)
    stream.flush()


