"""Keyboards and pointers over virtio, and the host's own input devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached
from pyvirt.devices.backend import boolean
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import HostPath, Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At


@frozen(kw_only=True)
class VirtioInput(Attached):
    """What virtio input devices share. `display` is the id of the card that the user looks at."""

    display: str | None = field(default=None, validator=fields.optional(fields.name))
    head: int | None = field(default=None, validator=fields.optional(fields.between(0, 0xFFFFFFFF)))

    PREFIX = "input"

    def __attrs_post_init__(self) -> None:
        if self.head is not None and self.display is None:
            raise SpecError("head", "must come with display", self.head)


@frozen(kw_only=True)
class VirtioKeyboard(VirtioInput):
    """A keyboard."""

    DRIVER = "virtio-keyboard-pci"

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.device(at.virtio("keyboard"), at, display=self.display, head=self.head)


@frozen(kw_only=True)
class VirtioMouse(VirtioInput):
    """A mouse, which moves by steps."""

    wheel_axis: bool | None = field(default=None, validator=fields.optional(boolean))

    DRIVER = "virtio-mouse-pci"

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.device(
            at.virtio("mouse"),
            at,
            display=self.display,
            head=self.head,
            wheel_axis=self.wheel_axis,
        )


@frozen(kw_only=True)
class VirtioTablet(VirtioInput):
    """A pointer with absolute positions."""

    wheel_axis: bool | None = field(default=None, validator=fields.optional(boolean))

    DRIVER = "virtio-tablet-pci"

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.device(
            at.virtio("tablet"),
            at,
            display=self.display,
            head=self.head,
            wheel_axis=self.wheel_axis,
        )


@frozen
class VirtioInputHost(Attached):
    """The host's input device `evdev` (``/dev/input/event3``), for this guest alone."""

    evdev: Path = field(converter=Path)

    PREFIX, DRIVER = "input", "virtio-input-host-pci"

    def options(self, at: At) -> Iterator[Option | Need]:
        yield HostPath(f"{at.name}-host", self.evdev, hint="see /dev/input/by-id")
        yield self.device(at.virtio("input-host"), at, evdev=str(self.evdev))
