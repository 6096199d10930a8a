"""Images that are made: each is a draft until it is whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs

from pyvirt.disk.local import Null
from pyvirt.disk.node import BlockNode
from pyvirt.errors import ImageError, SpecError
from pyvirt.qemu_img import calls
from pyvirt.qemu_img.call import Call
from pyvirt.qemu_img.calls import COPYING, Backing, Copying
from pyvirt.qemu_img.options import CreateOptions, Qcow2Options
from pyvirt.qemu_img.options import options as options_of
from pyvirt.running.children.keeper import forget, keep
from pyvirt.running.tools.chain import image_node
from pyvirt.running.tools.described import Written, checked, info_of, written
from pyvirt.running.tools.draft import Draft
from pyvirt.running.tools.given import (
    Passphrase,
    PathLike,
    absolute,
    backing_of,
    size_of,
    source_of,
)
from pyvirt.running.tools.inplace import Place
from pyvirt.running.tools.writing import Progress, Work, Writing, write


def create(
    path: PathLike,
    size: int | str | None = None,
    format: str | CreateOptions = "qcow2",
    *,
    backing: PathLike | None = None,
    backing_format: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Writing[Written]:
    """Make an image of `size` bytes ("10G"); over `backing` it has that one's size by default.

    `options` are those of the format (`cluster_size`, `preallocation`, `encrypt`, ...): see
    `pyvirt.image.Qcow2Options` and its siblings, which may be given as the `format` instead.
    """
    target, chosen = absolute(path), _placed(options_of(format, options), path)
    bytes_ = None if size is None else size_of(size)
    below = backing_of(backing, backing_format)
    if bytes_ is None and below is None:
        raise SpecError("size", "must be given", None)
    chosen.check(bytes_, None if below is None else below.name)

    def act(work: Work) -> Written:
        with _New(work, target, chosen, overwrite) as new:
            work.tell(None)
            new.run(calls.create(str(new.path), bytes_, chosen, new.below(below)))
            return new.finish(None if chosen.format == "vpc" else bytes_)

    return write(Work(f"creating {target.name}", progress), act)


def convert(
    source: PathLike | BlockNode,
    target: PathLike,
    format: str | CreateOptions = "qcow2",
    *,
    source_format: str | None = None,
    key: Passphrase = None,
    snapshot: str | None = None,
    shared: bool = False,
    backing: PathLike | None = None,
    backing_format: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Writing[Written]:
    """Copy the disk in `source` to a new image `target` of `format`.

    `source` is a file of `source_format` (opened with `key`), or a block node (`Nbd`, ...);
    of its `snapshot`, if one is named. `shared` reads one that a QEMU may be writing: what
    comes out may be torn. The new image lies over `backing`, if one is given, which must hold what
    the source's own backing image holds.

    `options` are those of the format, and of `pyvirt.image.Copying` (`compress`, `threads`,
    `out_of_order`, `sparse`, `rate`, `bitmaps`, `salvage`, ...). A block device as the
    `target` is written in place, and needs `overwrite`.
    """
    how = Copying(**{name: options.pop(name) for name in COPYING if name in options})
    chosen = _placed(options_of(format, options), target)
    from_ = source_of(source, source_format, key)
    name = str(source) if not isinstance(source, BlockNode) else f"the {source.driver} node"
    below = backing_of(backing, backing_format)
    to = absolute(target)

    def call(work: Work, path: Path, over: Backing | None, existing: bool = False) -> Call:
        return calls.convert(
            from_(work), name, str(path), chosen, how,
            snapshot=snapshot, backing=over, shared=shared, existing=existing,
        )  # fmt: skip

    def act(work: Work) -> Written:
        if to.is_block_device():
            if not overwrite:
                raise FileExistsError(17, "File exists; overwrite=True writes to it", str(to))
            work.run(call(work, to, below, existing=True))
            return written(work, to, chosen.format)
        with _New(work, to, chosen, overwrite) as new:
            new.run(call(work, new.path, new.below(below)))
            return new.finish(None)

    # What is wrong with the words is said at once.
    calls.convert(Null(0), name, str(to), chosen, how, backing=below)
    return write(Work(f"converting {Path(name).name}", progress), act)


def compact(
    path: PathLike,
    *,
    compress: bool = False,
    progress: Progress | None = None,
) -> Writing[Written]:
    """Write a qcow2 image anew without what it no longer uses; all else stays as it is.

    Its options, its backing image and its bitmaps are kept. Refuses an image with snapshots,
    which would be lost, and one that is encrypted or has an external data file.
    """
    target = absolute(path)

    def act(work: Work) -> Written:
        Place(work, target, "qcow2").close()
        info = info_of(work, target, "qcow2")
        options, below, bitmaps = _kept(target, info)
        how = Copying(compress=compress, bitmaps=bitmaps)
        with _New(work, target, options, overwrite=True) as new:
            image = image_node(work, target, "qcow2")
            path = str(new.path)
            new.run(calls.convert(image, str(target), path, options, how, backing=below))
            return new.finish(info["virtual-size"])

    return write(Work(f"compacting {target.name}", progress), act)


def _placed(options: CreateOptions, path: PathLike) -> CreateOptions:
    """With the whole name of a data file: QEMU looks for others from where it runs itself."""
    if isinstance(options, Qcow2Options) and options.data_file is not None:
        return attrs.evolve(options, data_file=str(absolute(path).parent / options.data_file))
    return options


class _New:
    """A new image in the making, with what lies beside it."""

    def __init__(self, work: Work, target: Path, options: CreateOptions, overwrite: bool) -> None:
        self._work, self._options = work, options
        self._beside = [target.parent / name for name in options.files(str(target))]
        for path in self._beside:
            if os.path.lexists(path):
                raise FileExistsError(17, "File exists, and is not replaced", str(path))
        self._draft = Draft(target, replace=overwrite, scattered=options.scattered)
        self.path = self._draft.path

    def run(self, call: Call) -> None:
        """Run what makes it; complaints call it by the name that it will have."""
        target = self._draft.target
        call = attrs.evolve(call, names={**call.names, str(self.path): str(target)})
        self._work.run(call, cwd=str(target.parent))

    def below(self, backing: Backing | None) -> Backing | None:
        """The backing image by a name that is right from where the draft lies."""
        if backing is None or not self._options.scattered:
            return backing
        return attrs.evolve(backing, name=str(self._draft.target.parent / backing.name))

    def finish(self, size: int | None) -> Written:
        """Look whether it is what was wanted, and have it take its place."""
        made = checked(self._work, self.path, self._options.format, size, self._draft.target)
        with self._work.unstoppable():
            self._draft.finish()
            self._keep_beside(False)
            self._beside = []
        return made

    def _keep_beside(self, keeps: bool) -> None:
        for path in self._beside:
            (keep if keeps else forget)(path)

    def __enter__(self) -> _New:
        self._draft.make_room()
        self._keep_beside(True)
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._beside:
            path.unlink(missing_ok=True)
        self._keep_beside(False)
        self._draft.close()


def _kept(path: Path, info: dict[str, Any]) -> tuple[Qcow2Options, Backing | None, bool]:
    """What a qcow2 image must be made with to be the same again; refuses what would be lost."""
    data = info["format-specific"]["data"]
    for name, lost in (
        ("snapshots", info.get("snapshots")),
        ("an external data file", data.get("data-file")),
        ("encryption", data.get("encrypt")),
    ):
        if lost:
            raise ImageError(path, f"has {name}, which would be lost", format="qcow2")
    options = Qcow2Options(
        cluster_size=info["cluster-size"],
        compat=data["compat"],
        compression_type=data.get("compression-type") if data["compat"] != "0.10" else None,
        extended_l2=data.get("extended-l2"),
        lazy_refcounts=data.get("lazy-refcounts"),
        refcount_bits=data["refcount-bits"],
    )
    below = info.get("backing-filename")
    if below is None:
        return options, None, bool(data.get("bitmaps"))
    if "backing-filename-format" not in info:
        raise ImageError(path, "does not say the format of its backing image; rebase says it")
    return options, Backing(below, info["backing-filename-format"]), bool(data.get("bitmaps"))
