"""What a VM boots, when it is not the default guest: a kernel, or what its firmware finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from attrs import field

from pyvirt import fields
from pyvirt.fields import frozen
from pyvirt.guest import Guest, cmdline
from pyvirt.nic import Nic, User
from pyvirt.qemu.composition import Placed
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Late, Option


@frozen
class Kernel:
    """A kernel of the user's own: bzImage, or an ELF with a PVH entry note.

    `initrd` and the command line `append` are optional.
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
    """A built default guest: supplies ``<name>.kernel``, ``.initramfs`` and ``.append``.

    `words` are what this VM adds to the kernel's command line. At `address` the initramfs is
    put into guest memory by itself, and the kernel is told. With `clock` it is told the speed
    of the host's time-stamp counter. UEFI starts the kernel as it was packed (`efi`).
    """

    guest: Guest
    words: tuple[str, ...] = ()
    address: int | None = None
    clock: bool = False
    efi: bool = False

    def append(self, built: str, size: int, khz: int | None) -> str:
        """The kernel's command line: for an initramfs of `size` bytes, on a host of `khz`."""
        words = [built, *self.words]
        if self.address is not None:
            words += cmdline.initrd_at(self.address, size)
        if self.clock and khz is not None:
            words.append(cmdline.tsc(khz))
        return " ".join(words)


#: How many cards are told their address; the others ask by DHCP. Linux on x86 reads 2,048
#: bytes of its command line, and hangs in PVH's early code when there are more.
MOST_ADDRESSES = 12

#: Root ports in use from which on the guest is told to leave those without interrupts.
MANY_PORTS = 24


def guest_words(board: str, accel: str, parts: Iterable[Placed]) -> Iterator[str]:
    """What the default guest is told of its VM: what QEMU's user networks would answer by DHCP.

    Their addresses are up before the guest answers, where DHCP takes a second and a half.
    """
    if board != "microvm":
        yield from cmdline.timer(accel)
    parts = list(parts)
    if sum(str(placed.at.place.get("bus")).startswith("port") for placed in parts) > MANY_PORTS:
        yield cmdline.quiet_ports()
    yield from islice(_addresses(parts), MOST_ADDRESSES)


def _addresses(parts: Iterable[Placed]) -> Iterator[str]:
    for placed in parts:
        part = placed.part
        user = part.backend if isinstance(part, Nic) else None
        if isinstance(part, Nic) and isinstance(user, User) and user.ipv4 is not False:
            yield _address(part.address_in(placed.at), user)


def _address(mac: str, user: User) -> str:
    address = f"{user.guest}/{user.network.prefixlen}"
    if user.restrict:  # libslirp then names neither gateway nor name server
        return cmdline.ip(mac, address)
    return cmdline.ip(mac, address, str(user.gateway), str(user.server))


#: Where the initramfs goes when QEMU must not place it: above the kernel, below 192 MiB.
APART = 128 << 20


def guest_options(image: GuestImage) -> Iterator[Option | Need]:
    """The options that boot a default guest once it is built."""
    initramfs = Late(f"{image.name}.initramfs")
    yield image
    yield Option("kernel", Late(f"{image.name}.kernel"), "kernel")
    if image.address is None:
        yield Option("initrd", initramfs)
    else:
        loader = {"driver": "loader", "file": initramfs, "addr": image.address, "force-raw": True}
        yield Option("device", loader)
    yield Option("append", Late(f"{image.name}.append"), "append")
