"""What a virtio-net card offers to its guest, by the names QEMU gives the feature bits."""

from __future__ import annotations

from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import present
from pyvirt.errors import SpecError
from pyvirt.fields import frozen


def _bit() -> Any:
    return field(default=None, validator=fields.optional(fields.kind(bool)))


@frozen(kw_only=True)
class Offloads:
    """Work on packets that the card does for the guest; None is QEMU's default, mostly on.

    ``host_*`` and `csum` are for what the guest sends, ``guest_*`` for what it receives.
    """

    csum: bool | None = _bit()
    gso: bool | None = _bit()
    host_tso4: bool | None = _bit()
    host_tso6: bool | None = _bit()
    host_ecn: bool | None = _bit()
    host_ufo: bool | None = _bit()
    guest_csum: bool | None = _bit()
    guest_tso4: bool | None = _bit()
    guest_tso6: bool | None = _bit()
    guest_ecn: bool | None = _bit()
    guest_ufo: bool | None = _bit()
    guest_rsc_ext: bool | None = _bit()
    rsc_interval: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 2**32 - 1))
    )

    def __attrs_post_init__(self) -> None:
        # virtio 1.2, 5.1.3.1: which bit requires which. QEMU does not hold itself to it.
        self._need("csum", "host_tso4", "host_tso6", "host_ufo")
        self._need("guest_csum", "guest_tso4", "guest_tso6", "guest_ufo")

    def _need(self, base: str, *names: str) -> None:
        for name in names:
            if getattr(self, base) is False and getattr(self, name):
                raise SpecError(name, f"needs {base}, which is off", True)

    @classmethod
    def none(cls) -> Offloads:
        """No work at all: every packet is whole, small and summed by its sender."""
        flags = [item.name for item in attrs.fields(cls) if item.name != "rsc_interval"]
        return cls(**dict.fromkeys(flags, False))

    def properties(self) -> dict[str, Any]:
        return present(attrs.asdict(self))


@frozen(kw_only=True)
class Control:
    """The control queue and what it carries; None is QEMU's default, which is on."""

    ctrl_vq: bool | None = _bit()
    ctrl_rx: bool | None = _bit()
    ctrl_rx_extra: bool | None = _bit()
    ctrl_vlan: bool | None = _bit()
    ctrl_mac_addr: bool | None = _bit()
    ctrl_guest_offloads: bool | None = _bit()
    guest_announce: bool | None = _bit()

    def __attrs_post_init__(self) -> None:
        if self.ctrl_vq is not False:
            return
        for item in attrs.fields(Control):
            if getattr(self, item.name):
                raise SpecError(item.name, "needs ctrl_vq, which is off", True)

    def properties(self) -> dict[str, Any]:
        """The bits as properties; without the queue, all that it would carry is off as well."""
        if self.ctrl_vq is False:
            return {item.name: False for item in attrs.fields(Control)}
        return present(attrs.asdict(self))


def to_offloads(value: Any) -> Any:
    """True and False stand for QEMU's defaults and for none."""
    if isinstance(value, bool):
        return Offloads() if value else Offloads.none()
    return value
