"""Drives of a running guest: change the medium, the size, the limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyvirt.disk.throttle import Throttle
from pyvirt.errors import CommandError, PyvirtError, SpecError
from pyvirt.qemu.option import Option
from pyvirt.qemu.render import commands, removal
from pyvirt.qmp.flow import Command, Flow, Until


def medium_name(device: str, present: Iterable[Option]) -> str:
    """What names of the next medium's nodes begin with, beside those `present` in the drive.

    The next medium is opened before the old one is let go, so they need different names.
    """
    ids = [option.id for option in present if option.id.startswith(f"{device}-")]
    taken = any(not id.startswith(f"{device}-next-") for id in ids)
    return f"{device}-next" if taken else device


def insert(
    device: str,
    medium: Sequence[Option],
    supplied: Mapping[str, str],
    *,
    present: Sequence[Option] = (),
    force: bool = False,
    timeout: float | None = None,
) -> Flow[None]:
    """Put `medium` (the options of `Drive.medium`) into drive `device`, and close its tray.

    `present` are the options of the drive as it is: their nodes and objects go. A medium
    that cannot be opened leaves the old one where it is. The guest may have locked the
    tray: it gets `timeout` seconds to open it, or is not asked when `force`.
    """
    done: list[Option] = []
    try:
        for option in medium:
            yield from commands([option], supplied)
            done.append(option)
        yield from _open(device, force, timeout)
    except PyvirtError:
        yield from _discard(done)
        raise
    yield Command("blockdev-remove-medium", {"id": device})
    yield Command("blockdev-insert-medium", {"id": device, "node-name": medium[-1].id})
    yield Command("blockdev-close-tray", {"id": device})
    yield from _discard(present)


def eject(
    device: str,
    *,
    present: Sequence[Option] = (),
    force: bool = False,
    timeout: float | None = None,
) -> Flow[None]:
    """Take the medium out of drive `device`; its tray stays open. The rest as in `insert`."""
    yield from _open(device, force, timeout)
    yield Command("blockdev-remove-medium", {"id": device})
    yield from _discard(present)


def _open(device: str, force: bool, timeout: float | None) -> Flow[None]:
    try:
        yield Command("blockdev-open-tray", {"id": device, **({"force": True} if force else {})})
    except CommandError as error:
        if "is locked" not in error.desc:
            raise
        # QEMU has passed the wish on to the guest.
        yield Until("DEVICE_TRAY_MOVED", {"id": device, "tray-open": True}, timeout)


def _discard(options: Iterable[Option]) -> Flow[None]:
    for option in reversed(list(options)):
        if option.kind in ("blockdev", "object"):  # The device itself stays.
            yield removal(option)


def resize(device: str, size: int, *, shrink: bool = False) -> Flow[None]:
    """Change the size of the image in `device` to `size` bytes; the guest is told.

    What lies beyond a smaller size is lost, so that has to be asked for with `shrink`. QEMU
    refuses a new size for NVMe and floppies.
    """
    backend = yield from _backend(device)
    if "inserted" not in backend:
        raise SpecError("device", "must have a medium", device)
    now = backend["inserted"]["image"]["virtual-size"]
    if size < now and not shrink:
        raise SpecError("size", f"must be at least {now}, or shrink=True loses what is there", size)
    node = backend["inserted"]["node-name"]
    yield Command("block_resize", {"node-name": node, "size": size})


def throttle(device: str, limits: Throttle) -> Flow[None]:
    """Limit `device` to `limits`, instead of what limited it alone before.

    A group that it shares with others goes on counting beside it.
    """
    objects = yield Command("qom-list", {"path": "/objects"})
    own = f"{device}-throttle"
    if any(item["name"] == own for item in objects):
        yield from throttle_group(own, limits)
    else:
        backend = yield from _backend(device)
        yield Command("block_set_io_throttle", {"id": backend["qdev"], **_flat(limits)})


def throttle_group(group: str, limits: Throttle) -> Flow[None]:
    """Give the throttle group new limits; all its disks share them from now on."""
    path = f"/objects/{group}"
    value = limits.all_limits
    yield Command("qom-set", {"path": path, "property": "limits", "value": value})


def _flat(limits: Throttle) -> dict[str, int]:
    """`limits` in the older words of ``block_set_io_throttle`` ("bps_rd_max")."""
    short = {"total": "", "read": "_rd", "write": "_wr"}
    given = {}
    for name, value in limits.all_limits.items():
        what, which, *rest = name.split("-")
        given["_".join([what + short.get(which, f"_{which}"), *rest])] = value
    return given


def _backend(device: str) -> Flow[Mapping[str, Any]]:
    """What ``query-block`` says of `device`, which may be a child of the device with that id."""
    path = f"/machine/peripheral/{device}/"
    for backend in (yield Command("query-block")):
        qdev = backend.get("qdev", "")
        if qdev == device or f"{qdev}/".startswith(path):
            return backend  # type: ignore[no-any-return]
    raise SpecError("device", "must be a drive of this VM", device)
