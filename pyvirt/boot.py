"""What a VM boots, when it is not the default guest: a kernel, or what its firmware finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attrs import field, frozen

from pyvirt import fields
from pyvirt.guest import Guest
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Late, Option


@frozen
class Kernel:
    """A kernel of the user's own: bzImage, or an ELF with a PVH entry note.

    `initrd` and the command line `append` are optional; `dtb` is for machines that take one.
    """

    kernel: Path = field(converter=Path)
    initrd: Path | None = field(default=None, converter=fields.to_path)
    append: str = field(default="", validator=fields.text, kw_only=True)

    def options(self) -> Iterator[Option]:
        """``-kernel``, ``-initrd``, ``-append``."""
        yield Option("kernel", str(self.kernel), "kernel")
        if self.initrd is not None:
            yield Option("initrd", str(self.initrd), "initrd")
        if self.append:
            yield Option("append", self.append, "append")


@frozen
class Firmware:
    """What the machine's firmware finds, by `bootindex` of disks and cards, or in its own order.

    `order` is QEMU's old letters (``c`` disk, ``d`` CD-ROM, ``n`` network, ``a`` floppy);
    devices with a bootindex come first. `menu` shows a boot menu for `splash_time`
    milliseconds; `strict` boots nothing that has no bootindex.
    """

    order: str = field(default="", validator=fields.text)
    menu: bool = field(default=False, kw_only=True)
    splash_time: int | None = field(default=None, kw_only=True)
    reboot_timeout: int | None = field(default=None, kw_only=True)
    strict: bool = field(default=False, kw_only=True)

    def options(self) -> Iterator[Option]:
        """``-boot``."""
        properties = {
            "order": self.order or None,
            "menu": self.menu or None,
            "splash-time": self.splash_time,
            "reboot-timeout": self.reboot_timeout,
            "strict": self.strict or None,
        }
        if any(value is not None for value in properties.values()):
            yield Option("boot", properties)


@frozen
class GuestImage(Need):
    """A built default guest: supplies ``<name>.kernel``, ``.initramfs`` and ``.append``."""

    guest: Guest


def guest_options(image: GuestImage) -> Iterator[Option | Need]:
    """The options that boot a default guest once it is built."""
    yield image
    yield Option("kernel", Late(f"{image.name}.kernel"), "kernel")
    yield Option("initrd", Late(f"{image.name}.initramfs"))
    yield Option("append", Late(f"{image.name}.append"), "append")
