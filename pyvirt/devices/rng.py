"""Randomness for the guest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached
from pyvirt.devices.backend import Backend, chardev_id
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At


@frozen(kw_only=True)
class Rng(Attached):
    """virtio-rng, from QEMU's own generator, the file `filename`, or a daemon behind `egd`.

    `max_bytes` in each `period` of milliseconds limits what a guest may draw.
    """

    filename: Path | None = field(default=None, converter=fields.to_path)
    egd: Backend | None = field(default=None, validator=fields.optional(fields.kind(Backend)))
    max_bytes: int | None = field(default=None, validator=fields.optional(fields.positive))
    period: int | None = field(default=None, validator=fields.optional(fields.positive))

    PREFIX, DRIVER = "rng", "virtio-rng-pci"

    def __attrs_post_init__(self) -> None:
        if self.egd is not None and self.filename is not None:
            raise SpecError("egd", "cannot be combined with filename", self.egd)
        if self.max_bytes is not None and self.period is None:
            raise SpecError("max_bytes", "must come with period", self.max_bytes)

    def options(self, at: At) -> Iterator[Option | Need]:
        source = f"{at.name}-source"
        if self.egd is not None:
            yield from self.egd.options(at.name)
        yield self._source(at.name, source)
        yield self.literal(
            at.virtio("rng"),
            at,
            {"rng": source, "max-bytes": self.max_bytes, "period": self.period},
        )

    def _source(self, name: str, id: str) -> Option:
        if self.egd is not None:
            given = {"qom-type": "rng-egd", "id": id, "chardev": chardev_id(name)}
            return Option("object", given, "egd")
        if self.filename is not None:
            given = {"qom-type": "rng-random", "id": id, "filename": str(self.filename)}
            return Option("object", given, "filename")
        return Option("object", {"qom-type": "rng-builtin", "id": id})
