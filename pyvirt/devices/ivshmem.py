"""ivshmem: memory that several guests, or a guest and its host, share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached
from pyvirt.devices.backend import Backend, Unix, chardev_id
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At

on_off_auto = fields.choice("on", "off", "auto")


@frozen
class Ivshmem(Attached):
    """`size` bytes of memory, a power of two, shared through the file `path`.

    Without a path it is a memfd of QEMU's, which others reach through its process. With
    `memdev`, the memory back end of that id is used. The `master` keeps its memory when
    it is migrated.
    """

    size: int | None = field(default=None, converter=fields.to_size)
    path: Path | None = field(default=None, converter=fields.to_path, kw_only=True)
    memdev: str | None = field(default=None, validator=fields.optional(fields.name), kw_only=True)
    master: str | None = field(default=None, validator=fields.optional(on_off_auto), kw_only=True)

    PREFIX, DRIVER = "ivshmem", "ivshmem-plain"

    def __attrs_post_init__(self) -> None:
        if (self.size is None) == (self.memdev is None):
            raise SpecError("size", "or memdev must be given, and not both", self.size)
        if self.size is not None and (self.size <= 0 or self.size & (self.size - 1)):
            raise SpecError("size", "must be a power of two", self.size)
        if self.path is not None and self.memdev is not None:
            raise SpecError("path", "cannot be combined with memdev", str(self.path))

    def options(self, at: At) -> Iterator[Option | Need]:
        memdev = self.memdev or f"{at.name}-memory"
        if self.memdev is None:
            yield self._memory(memdev)
        yield self.device(self.DRIVER, at, memdev=memdev, master=self.master)

    def _memory(self, id: str) -> Option:
        given = {"id": id, "size": self.size, "share": True}
        if self.path is None:
            return Option("object", {"qom-type": "memory-backend-memfd", **given})
        given["mem-path"] = str(self.path)
        return Option("object", {"qom-type": "memory-backend-file", **given})


def _to_backend(value: Backend | str | Path) -> Backend:
    return value if isinstance(value, Backend) else Unix(str(value))


@frozen
class IvshmemDoorbell(Attached):
    """Shared memory and interrupts between guests, handed out by an ivshmem-server at `server`.

    `vectors` is a power of two of MSI-X vectors for each peer.
    """

    server: Backend = field(
        converter=_to_backend,
    )
    vectors: int | None = field(
        default=None, validator=fields.optional(fields.between(1, 2048)), kw_only=True
    )
    master: str | None = field(default=None, validator=fields.optional(on_off_auto), kw_only=True)

    PREFIX, DRIVER = "ivshmem", "ivshmem-doorbell"

    def options(self, at: At) -> Iterator[Option | Need]:
        yield from self.server.options(at.name)
        yield self.device(
            self.DRIVER,
            at,
            chardev=chardev_id(at.name),
            vectors=self.vectors,
            master=self.master,
        )
