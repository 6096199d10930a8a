"""What QEMU, or the hardware it is, refuses in a drive: found at birth, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyvirt.disk.backend import bottom, image, walk
from pyvirt.disk.bus import BUSES, DRIVERS, GEOMETRY, PASSTHROUGH, SIZES
from pyvirt.disk.format import READ_ONLY
from pyvirt.disk.local import HostDevice, Local
from pyvirt.errors import SpecError

if TYPE_CHECKING:
    from pyvirt.disk.drive import Drive

#: The fields that become properties of the device, in the order in which they are written.
DEVICE_FIELDS = (
    "bootindex", "serial", "wwn", "vendor", "product", "model", "ver", "rotation_rate",
    "removable", "dpofua", "drive_type", "logical_block_size", "physical_block_size",
    "min_io_size", "opt_io_size", "discard_granularity", "cyls", "heads", "secs", "werror",
    "rerror", "share_rw", "queues", "queue_size", "packed", "iothread",
)  # fmt: skip

#: What a SCSI disk does not have because its controller has it.
_CONTROLLERS = ("queues", "queue_size", "packed", "iothread")


def check(drive: Drive) -> None:
    """Raise `SpecError` for the first thing that does not fit."""
    for rule in RULES:
        rule(drive)
    if drive.file is None:
        _empty(drive)
        return
    for rule in IMAGE_RULES:
        rule(drive)


def _driver(drive: Drive) -> None:
    allowed = drive.drivers
    if drive.kind not in allowed:
        reason = f"must be {' or '.join(allowed)} on bus {drive.bus}"
        raise SpecError("driver", reason, drive.driver)


def _controller(drive: Drive) -> None:
    if BUSES[drive.bus].slot != "pci":
        return
    if drive.controller:
        raise SpecError("controller", f"is for buses with one, not {drive.bus}", drive.controller)
    if drive.alone:
        raise SpecError("alone", f"is for buses with a controller, not {drive.bus}", True)


def _properties(drive: Drive) -> None:
    for name in DEVICE_FIELDS:
        value = getattr(drive, name, None)
        if value is None or name in DRIVERS[drive.kind].fields:
            continue
        if name in _CONTROLLERS and drive.bus == "scsi":
            reason = "belongs to the controller: describe that as a device and name its id"
        else:
            reason = f"is for {_having(name)}, not {drive.kind}"
        raise SpecError(name, reason, value)


def _having(name: str) -> str:
    return ", ".join(driver.name for driver in DRIVERS.values() if name in driver.fields)


def _texts(drive: Drive) -> None:
    for name, length in DRIVERS[drive.kind].lengths.items():
        value = getattr(drive, name, None)
        if value is None:
            continue
        if not value.isascii() or not value.isprintable():
            raise SpecError(name, "must be printable ASCII", value)
        if len(value) > length:
            raise SpecError(name, f"must be at most {length} characters on {drive.kind}", value)


def _sector(drive: Drive) -> None:
    only = BUSES[drive.bus].sector
    for name in ("logical_block_size", "discard_granularity"):
        value = getattr(drive, name, None)
        if only is not None and value not in (None, only):
            raise SpecError(name, f"must be {only} on bus {drive.bus}", value)


def _sizes(drive: Drive) -> None:
    sizes = {name: getattr(drive, name, None) for name in sorted(SIZES)}
    logical = sizes["logical_block_size"] or 512
    if logical > (sizes["physical_block_size"] or 512):
        reason = f"may not exceed physical_block_size ({sizes['physical_block_size'] or 512})"
        raise SpecError("logical_block_size", reason, logical)
    for name in ("min_io_size", "opt_io_size", "discard_granularity"):
        if (sizes[name] or 0) % logical:
            reason = f"must be a multiple of logical_block_size ({logical})"
            raise SpecError(name, reason, sizes[name])
    if (sizes["min_io_size"] or 0) > 65535 * logical:
        raise SpecError("min_io_size", "may not exceed 65535 logical blocks", sizes["min_io_size"])


def _floppy_sector(drive: Drive) -> None:
    physical = getattr(drive, "physical_block_size", None)
    if drive.bus == "floppy" and physical not in (None, 512):
        raise SpecError("physical_block_size", "must be 512 on bus floppy", physical)


def _geometry(drive: Drive) -> None:
    given = {name: getattr(drive, name, None) for name in sorted(GEOMETRY)}
    if None in given.values() and any(value is not None for value in given.values()):
        missing = next(name for name, value in given.items() if value is None)
        raise SpecError(missing, "must be given with the rest of the geometry", None)
    heads = given["heads"]
    if drive.kind == "ide-hd" and heads is not None and heads > 16:
        raise SpecError("heads", "must be from 1 to 16 on ide-hd", heads)


def _write_cache(drive: Drive) -> None:
    has_switch = "cache" in DRIVERS[drive.kind].fields
    if not has_switch and drive.cache in ("writethrough", "directsync"):
        raise SpecError(
            "cache", f"needs a write cache to switch off, not {drive.kind}", drive.cache
        )


def _empty(drive: Drive) -> None:
    """A drive without a medium has no nodes, so nothing that would be theirs."""
    for name in ("cache", "aio", "locking", "throttle", "readonly"):
        value = getattr(drive, name, None)
        if value:
            raise SpecError(name, "is of the medium, and there is none", value)


def _aio(drive: Drive) -> None:
    native = any(isinstance(n, Local) and n.aio == "native" for n in walk(image(drive)))
    if native and drive.cache not in ("none", "directsync"):
        raise SpecError("aio", "may be native only with cache none or directsync", "native")


def _zeroes(drive: Drive) -> None:
    zeroes = getattr(drive, "detect_zeroes", None)
    if zeroes == "unmap" and getattr(drive, "discard", None) != "unmap":
        raise SpecError("detect_zeroes", "may be unmap only with discard unmap", zeroes)


def _readonly(drive: Drive) -> None:
    if drive.reads_only and DRIVERS[drive.kind].needs_writable:
        raise SpecError("readonly", f"is refused by {drive.kind}", True)
    if drive.reads_only and drive.temporary:
        raise SpecError("snapshot", "is there to be written, not with readonly", True)
    if drive.reads_only and getattr(drive, "copy_on_read", False):
        raise SpecError("copy_on_read", "writes, and may not be with readonly", True)


def _readable_only(drive: Drive) -> None:
    if drive.reads_only or drive.temporary:
        return
    tree = image(drive)
    for node in (tree, bottom(tree)):
        if node.driver in READ_ONLY:
            reason = f"must be True, or snapshot: {node.driver} can only be read"
            raise SpecError("readonly", reason, False)


def _passthrough(drive: Drive) -> None:
    if drive.kind not in PASSTHROUGH:
        return
    tree = image(drive)
    if drive.format != "raw" or not isinstance(bottom(tree), HostDevice):
        raise SpecError("file", f"must be a HostDevice, raw, for {drive.kind}", drive.file)
    for name in ("throttle", "copy_on_read", "snapshot"):
        value = getattr(drive, name, None)
        if value:
            raise SpecError(name, f"would be passed by: {drive.kind} commands the device", value)


RULES: tuple[Callable[[Any], None], ...] = (
    _driver, _controller, _properties, _texts, _sector, _floppy_sector, _sizes, _geometry,
    _write_cache,
)  # fmt: skip
IMAGE_RULES: tuple[Callable[[Any], None], ...] = (
    _aio, _zeroes, _readonly, _readable_only, _passthrough,
)  # fmt: skip
