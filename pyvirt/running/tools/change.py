"""Changes of images that are there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs

from pyvirt import fields
from pyvirt.disk.format import Format
from pyvirt.disk.node import BlockNode
from pyvirt.errors import ImageError, SpecError
from pyvirt.qemu_img import calls
from pyvirt.qemu_img.amend import amendment
from pyvirt.qemu_img.call import node
from pyvirt.qemu_img.calls import Backing
from pyvirt.running.tools.chain import below, beneath_of, image_node
from pyvirt.running.tools.described import Written, checked, rounded, written
from pyvirt.running.tools.given import (
    Passphrase,
    PathLike,
    absolute,
    backing_of,
    secret_of,
    size_of,
)
from pyvirt.running.tools.inplace import Place, places
from pyvirt.running.tools.journal import redo_of
from pyvirt.running.tools.writing import Progress, Work, Writing, write


def resize(
    path: PathLike,
    size: int | str,
    format: str = "qcow2",
    *,
    shrink: bool = False,
    preallocation: str | None = None,
    key: Passphrase = None,
    progress: Progress | None = None,
) -> Writing[Written]:
    """Make the disk in an image `size` bytes large ("20G"), or larger by that ("+10G").

    What lies beyond a smaller size is lost, so `shrink` must say that this is meant.
    """
    target, secret = absolute(path), secret_of(key)
    if preallocation not in (None, "off", "metadata", "falloc", "full"):
        raise SpecError("preallocation", "must be one of off, metadata, falloc, full",
                        preallocation)  # fmt: skip
    relative = isinstance(size, str) and size.startswith("+")
    bytes_ = size_of(str(size)[1:] if relative else size)

    def act(work: Work) -> Written:
        with Place(work, target, format) as place:
            before = written(work, target, format).size
            wanted = rounded(before + bytes_ if relative else bytes_)
            if wanted < before and not shrink:
                raise SpecError("size", f"is less than {before}; shrink=True loses the rest", size)

            def run(file: BlockNode) -> None:
                image = node(target, format, secret, file)
                call = calls.resize(image, str(target), wanted, shrink=shrink,
                                    preallocation=preallocation)  # fmt: skip
                work.run(call)

            if format == "raw" and wanted >= before:
                place.directly(run)
            else:
                place.change(run, copied=preallocation not in (None, "off"))
        return checked(work, target, format, wanted)

    return write(Work(f"resizing {target.name}", progress), act)


def commit(
    path: PathLike,
    format: str = "qcow2",
    *,
    base: PathLike | None = None,
    empty: bool = True,
    rate: int | str | None = None,
    progress: Progress | None = None,
) -> Writing[Written]:
    """Move what an image holds into its backing image, and `empty` it afterwards.

    With `base`, into that image further down the chain, with what all images between hold; the
    image then lies over `base`, and those between are of no use any more. Needs room for the
    data twice for a while, with a `base` three times. `rate` is in bytes a second.
    """
    target = absolute(path)
    speed = None if rate is None else fields.size(rate, "rate")

    def act(work: Work) -> Written:
        lower = below(work, target, format)
        if lower is None:
            raise ImageError(target, "has no backing image in a file", format=format)
        deep = None if base is None else beneath_of(work, target, lower, absolute(base))
        lower = deep or lower
        more = 2 * written(work, target, format).size if deep else 0
        with places(work, (target, format), (lower.path, lower.format)) as (top, bottom):
            size = more + top.path.stat().st_size + bottom.path.stat().st_size
            with top.journal(more) as above, bottom.journal(2 * size) as beneath:
                name, lone = str(target), node(target, format, file=above.node)
                if deep:
                    whole = image_node(work, target, format, file=above.node)
                    over = Backing(str(deep.path), deep.format)
                    work.run(calls.rebase(whole, name, over, safe=True))
                # QEMU lays a node over a journal only where the header names no file.
                work.run(calls.rebase(lone, name, None, safe=False))
                under = image_node(work, lower.path, lower.format, file=beneath.node)
                image = Format(format, above.node, backing=under)
                work.run(calls.commit(image, name, empty=empty, rate=speed))
                work.run(calls.rebase(lone, name, lower.named, safe=False))
                beneath.apply()
                above.apply()
        return written(work, target, format)

    return write(Work(f"committing {target.name}", progress), act)


def rebase(
    path: PathLike,
    backing: PathLike | None,
    backing_format: str | None = None,
    format: str = "qcow2",
    *,
    safe: bool = True,
    progress: Progress | None = None,
) -> Writing[Written]:
    """Lay an image over another `backing` image, or over none.

    The guest sees the same disk: what differs is copied first. Without `safe` nothing is
    compared nor copied, as for a backing image that was only moved.
    """
    target, lower = absolute(path), backing_of(backing, backing_format)
    if not safe and lower is None:
        raise SpecError("safe", "must be true to lay an image over none", safe)
    # QEMU finds no relative name from a node, so it works with the whole one.
    whole = lower and attrs.evolve(lower, name=str(target.parent / lower.name))

    def act(work: Work) -> Written:
        with Place(work, target, format) as place:
            more = 2 * written(work, target, format).size if safe else 0

            def run(file: BlockNode) -> None:
                if safe:
                    image = image_node(work, target, format, file=file)
                    work.run(calls.rebase(image, str(target), whole, safe=True))
                if lower is not None and (not safe or lower != whole):
                    image = node(target, format, file=file)
                    work.run(calls.rebase(image, str(target), lower, safe=False))

            place.change(run, more=more)
        return written(work, target, format)

    return write(Work(f"rebasing {target.name}", progress), act)


def amend(
    path: PathLike,
    format: str = "qcow2",
    *,
    key: Passphrase = None,
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Writing[Written]:
    """Change the `options` of an image: see `pyvirt.image.Qcow2Amend` and `LuksAmend`.

    `force` is for what may lose data: to erase the last passphrase, or to set one in a slot
    that is in use.
    """
    target, secret = absolute(path), secret_of(key)
    if isinstance(name := options.get("data_file"), str | os.PathLike):
        options["data_file"] = str(target.parent / name)  # As `create` records it.
    changes = amendment(format, options)

    def act(work: Work) -> Written:
        with Place(work, target, format) as place:

            def run(file: BlockNode) -> None:
                image = node(target, format, secret, file)
                work.run(calls.amend(image, str(target), changes, force=force),
                         cwd=str(target.parent))  # fmt: skip

            place.change(run)
        return written(work, target, format)

    return write(Work(f"amending {target.name}", progress), act)


def recover(path: PathLike, format: str = "qcow2") -> Writing[bool]:
    """Finish a change that the host's end, or ours, cut short; whether there was one.

    Every change of an image does this first.
    """
    target = absolute(path)

    def act(work: Work) -> bool:
        found = redo_of(Path(os.path.realpath(target))).exists()
        Place(work, target, format).close()
        return found

    return write(Work(f"recovering {target.name}", None), act)
