"""The balloon: memory that a guest lends back to its host."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached
from pyvirt.devices.backend import boolean
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At


@frozen(kw_only=True)
class Balloon(Attached):
    """virtio-balloon. A VM has at most one.

    `deflate_on_oom` gives memory back before the guest's kernel kills; `free_page_reporting`
    returns free pages all the time, without inflating. Statistics are collected every
    `guest_stats_polling_interval` seconds. `free_page_hint` leaves free pages out of a
    migration and works on the I/O thread `iothread`.
    """

    deflate_on_oom: bool | None = field(default=None, validator=fields.optional(boolean))
    free_page_reporting: bool | None = field(default=None, validator=fields.optional(boolean))
    free_page_hint: bool | None = field(default=None, validator=fields.optional(boolean))
    page_poison: bool | None = field(default=None, validator=fields.optional(boolean))
    iothread: str | None = field(default=None, validator=fields.optional(fields.name))
    guest_stats_polling_interval: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 0xFFFFFFFF))
    )

    PREFIX, DRIVER = "balloon", "virtio-balloon-pci"

    def __attrs_post_init__(self) -> None:
        if self.free_page_hint and self.iothread is None:
            raise SpecError("free_page_hint", "must come with iothread", True)

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.device(
            at.virtio("balloon"),
            at,
            deflate_on_oom=self.deflate_on_oom,
            free_page_reporting=self.free_page_reporting,
            free_page_hint=self.free_page_hint,
            page_poison=self.page_poison,
            iothread=self.iothread,
            guest_stats_polling_interval=self.guest_stats_polling_interval,
        )
