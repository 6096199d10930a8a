"""What lies inside a qcow2 image beside its disk: snapshots and persistent bitmaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyvirt import fields
from pyvirt.disk.local import File
from pyvirt.disk.node import BlockNode
from pyvirt.errors import ImageError, SpecError
from pyvirt.fields import frozen
from pyvirt.qemu_img import calls
from pyvirt.qemu_img.call import node
from pyvirt.running.tools.described import Written, info_of, written
from pyvirt.running.tools.given import PathLike, absolute
from pyvirt.running.tools.inplace import Place
from pyvirt.running.tools.writing import Work, Writing, write


@frozen
class Snapshot:
    """A snapshot inside an image; `date` in seconds since 1970, `vm_state` in bytes."""

    id: str
    name: str
    vm_state: int
    date: float
    vm_clock: float


def snapshot_list(path: PathLike, format: str = "qcow2") -> Writing[tuple[Snapshot, ...]]:
    """The snapshots inside an image; one that a QEMU holds may be asked as well."""
    target = absolute(path)

    def act(work: Work) -> tuple[Snapshot, ...]:
        return tuple(map(_snapshot, info_of(work, target, format).get("snapshots", ())))

    return write(Work(f"reading {target.name}", None), act)


def snapshot_create(path: PathLike, name: str, format: str = "qcow2") -> Writing[Written]:
    """Keep what the disk holds now as the snapshot `name`."""
    return _snapshot_act(path, name, format, "create")


def snapshot_apply(path: PathLike, name: str, format: str = "qcow2") -> Writing[Written]:
    """Make the disk what it was at the snapshot `name`; what it is now is lost."""
    return _snapshot_act(path, name, format, "apply")


def snapshot_delete(path: PathLike, name: str, format: str = "qcow2") -> Writing[Written]:
    """Forget the snapshot `name`."""
    return _snapshot_act(path, name, format, "delete")


def bitmap_add(
    path: PathLike,
    name: str,
    format: str = "qcow2",
    *,
    granularity: int | str | None = None,
    enabled: bool = True,
) -> Writing[Written]:
    """Give an image the persistent bitmap `name`, which notes writes unless not `enabled`."""
    grain = None if granularity is None else fields.size(granularity, "granularity")
    if grain is not None and (grain < 512 or grain & (grain - 1)):
        raise SpecError("granularity", "must be a power of two from 512", granularity)
    verbs = ["--add"] if enabled else ["--add", "--disable"]
    return _bitmap(path, name, format, verbs, granularity=grain)


def bitmap_remove(path: PathLike, name: str, format: str = "qcow2") -> Writing[Written]:
    """Take the bitmap `name` away."""
    return _bitmap(path, name, format, ["--remove"])


def bitmap_clear(path: PathLike, name: str, format: str = "qcow2") -> Writing[Written]:
    """Have the bitmap `name` say that nothing was written."""
    return _bitmap(path, name, format, ["--clear"])


def bitmap_enable(path: PathLike, name: str, format: str = "qcow2") -> Writing[Written]:
    """Have the bitmap `name` note writes from now on."""
    return _bitmap(path, name, format, ["--enable"])


def bitmap_disable(path: PathLike, name: str, format: str = "qcow2") -> Writing[Written]:
    """Have the bitmap `name` stay as it is."""
    return _bitmap(path, name, format, ["--disable"])


def bitmap_merge(
    path: PathLike,
    name: str,
    source: str | Sequence[str],
    format: str = "qcow2",
    *,
    source_image: PathLike | None = None,
    source_format: str | None = None,
) -> Writing[Written]:
    """Add the bits of the bitmaps `source`, of this image or of `source_image`, to `name`."""
    names = [source] if isinstance(source, str) else list(source)
    if not names:
        raise SpecError("source", "must name a bitmap", source)
    verbs = [word for each in names for word in ("--merge", each)]
    other = None
    if source_image is not None:
        known = source_format or format
        other = node(source_image, known, file=File(absolute(source_image)))
    return _bitmap(path, name, format, verbs, source=other)


def _snapshot_act(path: PathLike, name: str, format: str, verb: str) -> Writing[Written]:
    target = absolute(path)
    if not isinstance(name, str) or not name or "\0" in name:
        raise SpecError("name", "must be text without NUL", name)
    if format != "qcow2":
        raise SpecError("format", "must be qcow2, which alone has snapshots", format)

    def act(work: Work) -> Written:
        with Place(work, target, format) as place:
            known = [one["name"] for one in info_of(work, target, format).get("snapshots", ())]
            if (name in known) == (verb == "create"):
                reason = f"has {'already a' if verb == 'create' else 'no'} snapshot {name!r}"
                raise ImageError(target, reason, format=format)

            def run(file: BlockNode) -> None:
                image = node(target, format, None, file)
                work.run(calls.snapshot(image, str(target), verb, name))

            place.change(run)
        return written(work, target, format)

    return write(Work(f"snapshot {name} of {target.name}", None), act)


def _bitmap(
    path: PathLike, name: str, format: str, verbs: Sequence[str], **more: Any
) -> Writing[Written]:
    target = absolute(path)
    if not isinstance(name, str) or not 0 < len(name.encode()) < 1024:
        raise SpecError("name", "must be text of 1 to 1023 bytes", name)

    def act(work: Work) -> Written:
        with Place(work, target, format) as place:
            place.change(
                lambda file: work.run(
                    calls.bitmap(
                        node(target, format, None, file), str(target), name, *verbs, **more
                    )
                )
            )
        return written(work, target, format)

    return write(Work(f"bitmap {name} of {target.name}", None), act)


def _snapshot(told: dict[str, Any]) -> Snapshot:
    return Snapshot(
        id=told["id"],
        name=told["name"],
        vm_state=told["vm-state-size"],
        date=told["date-sec"] + told["date-nsec"] / 1e9,
        vm_clock=told["vm-clock-sec"] + told["vm-clock-nsec"] / 1e9,
    )
