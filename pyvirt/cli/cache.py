"""``pyvirt cache``: what is kept between runs."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from attrs import asdict, frozen

from pyvirt.cli.output import Output, json_option, size, table

#: Folder of the cache → what lies there.
_KINDS = {
    "recipes": "guest",
    "objects": "image",
    "trees": "package",
    "qemu": "QEMU",
    "kvm.json": "KVM proof",
}
_DAY = 86400
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}")


@frozen
class Entry:
    """One thing in the cache: its size in bytes, its last use in seconds since 1970."""

    kind: str
    name: str
    path: str
    size: int
    used: float


@click.group("cache", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List or remove what was downloaded, built and learnt.

    It lies in $XDG_CACHE_HOME/pyvirt, and all of it is made again when it is needed.
    """


@command.command("list")
@json_option
def list_(output: Output) -> None:
    """List what there is, with sizes and the time of the last use."""
    from pyvirt.running.host.cache import cache_directory

    root = cache_directory()
    found = sorted(entries(root), key=lambda entry: (entry.kind, -entry.used))
    total = sum(entry.size for entry in found)
    if output.json:
        listed = [asdict(entry) for entry in found]
        output.document({"directory": str(root), "size": total, "entries": listed})
        return
    if found:
        click.echo(
            table([(e.kind, size(e.size).rjust(8), age(e.used), short(e.name)) for e in found])
        )
    click.echo(f"{size(total)} in {root}")


@command.command("remove")
@click.option(
    "--unused-for",
    type=click.FloatRange(0),
    metavar="DAYS",
    help="Remove only guests and packages that were not used for so many days.",
)
@json_option
def remove(output: Output, unused_for: float | None) -> None:
    """Remove all of it, or what was not used for a while. Guests that run go on."""
    from pyvirt.running.guest.cache import Cache
    from pyvirt.running.host.cache import cache_directory

    root = cache_directory()
    before = {entry.path: entry for entry in entries(root)}
    if unused_for is not None:
        Cache(root).prune(unused_for)
    else:
        Cache(root).remove()
        _forget(root)
    left = {entry.path for entry in entries(root)}
    gone = [entry for path, entry in before.items() if path not in left]
    freed = sum(entry.size for entry in gone)
    if output.json:
        output.document({"removed": [asdict(entry) for entry in gone], "size": freed})
    else:
        click.echo(f"Removed {len(gone)} of {len(before)}, {size(freed)}.")


def entries(root: Path) -> Iterator[Entry]:
    """Everything in the cache."""
    for folder, kind in _KINDS.items():
        place = root / folder
        paths = sorted(place.iterdir()) if place.is_dir() else [place] if place.exists() else []
        for path in paths:
            try:
                yield Entry(kind, path.name, str(path), _size(path), path.stat().st_mtime)
            except FileNotFoundError:
                continue  # somebody else removed it meanwhile


def short(name: str) -> str:
    """A name of which the digest is only begun."""
    return _DIGEST.sub(r"\1…", name)


def age(used: float) -> str:
    """How long ago that was, in the largest unit that fits."""
    seconds = max(0.0, time.time() - used)
    for unit, length in (("day", _DAY), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a directory."""
    if not path.is_dir():
        return path.stat().st_size
    files: Any = ((place, name) for place, _, names in os.walk(path) for name in names)
    return sum(os.lstat(os.path.join(place, name)).st_size for place, name in files)


def _forget(root: Path) -> None:
    """What was learnt of QEMU and KVM."""
    shutil.rmtree(root / "qemu", ignore_errors=True)
    (root / "kvm.json").unlink(missing_ok=True)
