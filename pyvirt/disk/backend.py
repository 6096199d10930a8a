"""The block nodes behind a drive: its image, and the filters between image and device.

    device → throttle → copy-on-read → temporary overlay → format → file

Only what the description asks for is there. Everything is one ``-blockdev``.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import attrs

from pyvirt.disk.format import FROM_IMAGE, Format, Qcow2, Raw
from pyvirt.disk.local import File, Local, to_node
from pyvirt.disk.node import BlockNode, Laid, Node, Place, check_name, lay
from pyvirt.disk.throttle import Throttle, group
from pyvirt.errors import SpecError
from pyvirt.qemu.need import Need, TemporaryOverlay
from pyvirt.qemu.option import Late, Option

if TYPE_CHECKING:
    from pyvirt.disk.drive import Drive

#: QEMU's block-layer half of each cache mode; the device's ``write-cache`` is the other.
CACHES: dict[str, dict[str, bool]] = {
    "none": {"direct": True},
    "writeback": {},
    "writethrough": {},
    "directsync": {"direct": True},
    "unsafe": {"no-flush": True},
}


def default_format(file: str | os.PathLike[str] | BlockNode | None) -> str:
    """qcow2 for a file, the format itself for a format, raw bytes for anything else."""
    if isinstance(file, Format | Qcow2 | Raw | Node):
        return file.driver
    return "raw" if isinstance(file, BlockNode) and not isinstance(file, File) else "qcow2"


def image(drive: Drive) -> BlockNode:
    """The drive's image, as the tree of nodes that its fields describe."""
    assert drive.file is not None
    node = _with_file_options(to_node(drive.file), drive)
    backing, key = getattr(drive, "backing", FROM_IMAGE), getattr(drive, "key", None)
    if node.driver != drive.format:
        return Format(drive.format, node, backing=backing, key=key)
    if backing is not FROM_IMAGE:
        raise SpecError("backing", f"belongs into the {node.driver} node here", backing)
    if key is not None:
        raise SpecError("key", f"belongs into the {node.driver} node here", key)
    return node


def _with_file_options(node: BlockNode, drive: Drive) -> BlockNode:
    """`node` with the drive's `aio` and `locking` set on the local file at its bottom."""
    given = {name: getattr(drive, name) for name in ("aio", "locking")}
    given = {name: value for name, value in given.items() if value is not None}
    return _at_bottom(node, given) if given else node


def _at_bottom(node: BlockNode, given: dict[str, Any]) -> BlockNode:
    if isinstance(node, Format | Qcow2 | Raw):
        return attrs.evolve(node, file=_at_bottom(node.file, given))
    for name, value in given.items():
        if not isinstance(node, Local):
            raise SpecError(
                name, f"is for files and devices of this host, not {node.driver}", value
            )
        if getattr(node, name) not in (None, value):
            raise SpecError(name, f"is {getattr(node, name)} in the node", value)
    local: Any = node  # mypy sees no attrs class in the base of several.
    return attrs.evolve(local, **given)  # type: ignore[no-any-return]


def walk(node: BlockNode) -> Iterator[BlockNode]:
    """`node` and every node below it."""
    yield node
    for value in node.properties.values():
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, BlockNode):
                yield from walk(item)


def bottom(node: BlockNode) -> BlockNode:
    """The node that holds the bytes of `node`'s image (not of its backing images)."""
    below = node.properties.get("file")
    return bottom(below) if isinstance(below, BlockNode) else node


def nodes(drive: Drive, name: str) -> Generator[Option | Need, None, str]:
    """Yield what opens the drive's image as nodes of `name`; return the top node's name."""
    flags = _flags(drive)
    if drive.temporary:
        tree = yield from _overlay(drive, name, flags)
    else:
        cache = _cache(drive)
        tree = yield from lay(image(drive), f"{name}-format", Place(name), {**cache, **flags})
    flags.pop("detect-zeroes", None)
    if getattr(drive, "copy_on_read", False):
        tree = _filter("copy-on-read", name, flags, tree)
    if drive.throttle is not None:
        named = isinstance(drive.throttle, str)
        if isinstance(drive.throttle, Throttle):
            yield group(f"{name}-throttle", drive.throttle, "throttle")
        own = {"throttle-group": drive.throttle if named else f"{name}-throttle"}
        tree = _filter("throttle", name, {**own, **flags}, tree)
    yield Option("blockdev", tree)
    return str(tree["node-name"])


def _flags(drive: Drive) -> dict[str, Any]:
    """What counts in each node from the format up, and is handed to no child by QEMU itself."""
    given = {
        "read-only": drive.reads_only or None,
        "discard": getattr(drive, "discard", None),
        "detect-zeroes": getattr(drive, "detect_zeroes", None),
    }
    return {word: value for word, value in given.items() if value is not None}


def _cache(drive: Drive) -> dict[str, Any]:
    """The cache flags of the format node; the nodes below inherit them."""
    flags = CACHES[drive.cache] if drive.cache is not None else {}
    return {"cache": flags} if flags else {}


def _filter(driver: str, name: str, own: dict[str, Any], below: dict[str, Any]) -> dict[str, Any]:
    check_name(f"{name}-{driver}")
    return {"driver": driver, "node-name": f"{name}-{driver}", **own, "file": below}


def _overlay(drive: Drive, name: str, flags: dict[str, Any]) -> Generator[Any, None, Any]:
    """A qcow2 image made for this run, which takes all writes; the image below is only read."""
    objects: list[Option] = []
    given = {**_cache(drive), "read-only": True}
    base = yield from _noting(lay(image(drive), f"{name}-format", Place(name), given), objects)
    need = f"{name}-overlay"
    check_name(f"{need}-file")
    yield TemporaryOverlay(need, backing=base, objects=tuple(objects))
    file = {"driver": "file", "node-name": f"{need}-file", "filename": Late(need)}
    # Nobody reads the overlay after a crash, so nothing waits for its flushes.
    cache = {"direct": False, "no-flush": True}
    own = {"driver": "qcow2", "node-name": need, "cache": cache, **flags}
    return {**own, "file": file, "backing": base}


def _noting(laying: Laid, objects: list[Option]) -> Laid:
    """The same as `laying`; the options that it yields are noted in `objects` as well."""
    while True:
        try:
            item = next(laying)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if isinstance(item, Option):
            objects.append(item)
        yield item
