"""Graphics cards. `card` makes one from the word that ``-vga`` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At

boolean = fields.kind(bool)
pixels = fields.between(0, 0xFFFFFFFF)
megabytes = fields.positive


@frozen(kw_only=True)
class Card(Attached):
    """What graphics cards share: the screens of a running machine stay, so none is unplugged."""

    PREFIX, GROUP, UNPLUGGABLE = "video", "video", False


@frozen(kw_only=True)
class StdVga(Card):
    """Bochs' VGA with VESA modes. A `secondary` one has no VGA registers, so several fit.

    `vgamem_mb` in MiB. The monitor described by `edid` prefers `xres` by `yres` and reaches
    `xmax` by `ymax`.
    """

    vgamem_mb: int | None = field(default=None, validator=fields.optional(fields.between(1, 256)))
    xres: int | None = field(default=None, validator=fields.optional(pixels))
    yres: int | None = field(default=None, validator=fields.optional(pixels))
    xmax: int | None = field(default=None, validator=fields.optional(pixels))
    ymax: int | None = field(default=None, validator=fields.optional(pixels))
    refresh_rate: int | None = field(default=None, validator=fields.optional(pixels))
    edid: bool | None = field(default=None, validator=fields.optional(boolean))
    secondary: bool = field(default=False, validator=boolean)

    @property
    def driver(self) -> str:
        return "secondary-vga" if self.secondary else "VGA"

    def options(self, at: At) -> Iterator[Option | Need]:
        given = {"vgamem_mb": self.vgamem_mb, "refresh_rate": self.refresh_rate, **_screen(self)}
        yield self.literal(self.driver, at, given)


@frozen(kw_only=True)
class CirrusVga(Card):
    """A Cirrus CLGD 5446, which very old guests know. `vgamem_mb` in MiB."""

    DRIVER = "cirrus-vga"

    vgamem_mb: int | None = field(default=None, validator=fields.optional(fields.choice(4, 8, 16)))
    blitter: bool | None = field(default=None, validator=fields.optional(boolean))

    def options(self, at: At) -> Iterator[Option | Need]:
        given = {"vgamem_mb": self.vgamem_mb, "blitter": self.blitter}
        yield self.literal(self.DRIVER, at, given)


@frozen(kw_only=True)
class Qxl(Card):
    """SPICE's own card; a `secondary` one is for a second screen. Sizes with ``_mb`` in MiB."""

    secondary: bool = field(default=False, validator=boolean)
    ram_size_mb: int | None = field(default=None, validator=fields.optional(megabytes))
    vram_size_mb: int | None = field(default=None, validator=fields.optional(megabytes))
    vram64_size_mb: int | None = field(default=None, validator=fields.optional(megabytes))
    vgamem_mb: int | None = field(default=None, validator=fields.optional(megabytes))
    surfaces: int | None = field(default=None, validator=fields.optional(fields.positive))
    max_outputs: int | None = field(default=None, validator=fields.optional(pixels))
    revision: int | None = field(default=None, validator=fields.optional(fields.between(1, 5)))
    xres: int | None = field(default=None, validator=fields.optional(pixels))
    yres: int | None = field(default=None, validator=fields.optional(pixels))

    @property
    def driver(self) -> str:
        return "qxl" if self.secondary else "qxl-vga"

    def options(self, at: At) -> Iterator[Option | Need]:
        given = {
            "ram_size_mb": self.ram_size_mb,
            "vram_size_mb": self.vram_size_mb,
            "vram64_size_mb": self.vram64_size_mb,
            "vgamem_mb": self.vgamem_mb,
            "surfaces": self.surfaces,
            "max_outputs": self.max_outputs,
            "revision": self.revision,
            "xres": self.xres,
            "yres": self.yres,
        }
        yield self.literal(self.driver, at, given)


@frozen(kw_only=True)
class VmwareSvga(Card):
    """VMware's SVGA II. `vgamem_mb` in MiB."""

    DRIVER = "vmware-svga"

    vgamem_mb: int | None = field(default=None, validator=fields.optional(megabytes))

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.literal(self.DRIVER, at, {"vgamem_mb": self.vgamem_mb})


@frozen(kw_only=True)
class VirtioGpu(Card):
    """virtio-gpu, by default with VGA registers, so that firmware has a screen too.

    `gl` draws 3D with the host's OpenGL and needs a display with ``gl``. `blob` resources
    need `max_hostmem` bytes at most, and shared guest memory. A microvm takes none with `vga`.
    """

    vga: bool = field(default=True, validator=boolean)
    gl: bool = field(default=False, validator=boolean)
    max_outputs: int | None = field(default=None, validator=fields.optional(fields.between(1, 16)))
    xres: int | None = field(default=None, validator=fields.optional(pixels))
    yres: int | None = field(default=None, validator=fields.optional(pixels))
    edid: bool | None = field(default=None, validator=fields.optional(boolean))
    blob: bool | None = field(default=None, validator=fields.optional(boolean))
    max_hostmem: int | None = field(default=None, converter=fields.to_size)

    def __attrs_post_init__(self) -> None:
        if self.gl and self.blob:
            raise SpecError("blob", "cannot be combined with gl in QEMU's virtio-gpu", True)

    @property
    def driver(self) -> str:
        gl = "-gl" if self.gl else ""
        return f"virtio-vga{gl}" if self.vga else f"virtio-gpu{gl}-pci"

    @property
    def needs_shared_memory(self) -> bool:
        """Blob resources are mapped from the guest's memory through udmabuf."""
        return bool(self.blob)

    def options(self, at: At) -> Iterator[Option | Need]:
        given = {
            "max_outputs": self.max_outputs,
            "xres": self.xres,
            "yres": self.yres,
            "edid": self.edid,
            "blob": self.blob,
            "max_hostmem": self.max_hostmem,
        }
        mmio = at.virtio("gpu-gl" if self.gl else "gpu")
        yield self.literal(self.driver if at.transport == "pci" else mmio, at, given)


@frozen(kw_only=True)
class BochsDisplay(Card):
    """A bare frame buffer with Bochs' registers and no VGA: little to attack. `vgamem` in bytes."""

    DRIVER = "bochs-display"

    vgamem: int | None = field(default=None, converter=fields.to_size)
    xres: int | None = field(default=None, validator=fields.optional(pixels))
    yres: int | None = field(default=None, validator=fields.optional(pixels))
    xmax: int | None = field(default=None, validator=fields.optional(pixels))
    ymax: int | None = field(default=None, validator=fields.optional(pixels))
    refresh_rate: int | None = field(default=None, validator=fields.optional(pixels))
    edid: bool | None = field(default=None, validator=fields.optional(boolean))

    def options(self, at: At) -> Iterator[Option | Need]:
        given = {"vgamem": self.vgamem, "refresh_rate": self.refresh_rate, **_screen(self)}
        yield self.literal(self.DRIVER, at, given)


@frozen(kw_only=True)
class Ramfb(Card):
    """A frame buffer in guest memory that firmware sets up through fw_cfg; takes no slot."""

    DRIVER, BUS = "ramfb", ""

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self.literal(self.DRIVER, at, {})


@frozen(kw_only=True)
class AtiVga(Card):
    """An ATI Rage 128 Pro ("rage128p") or RV100 ("rv100"), incomplete in QEMU."""

    DRIVER = "ati-vga"

    model: str | None = field(
        default=None, validator=fields.optional(fields.choice("rage128p", "rv100"))
    )
    vgamem_mb: int | None = field(default=None, validator=fields.optional(megabytes))
    guest_hwcursor: bool | None = field(default=None, validator=fields.optional(boolean))

    def options(self, at: At) -> Iterator[Option | Need]:
        given = {
            "model": self.model,
            "vgamem_mb": self.vgamem_mb,
            "guest_hwcursor": self.guest_hwcursor,
        }
        yield self.literal(self.DRIVER, at, given)


def _screen(card: StdVga | BochsDisplay) -> Mapping[str, Any]:
    return {
        "xres": card.xres,
        "yres": card.yres,
        "xmax": card.xmax,
        "ymax": card.ymax,
        "edid": card.edid,
    }


_VGA: Mapping[str, Callable[[], Card]] = {
    "std": StdVga,
    "cirrus": CirrusVga,
    "qxl": Qxl,
    "vmware": VmwareSvga,
    "virtio": VirtioGpu,
}


def card(name: str) -> Card | None:
    """The card that ``-vga name`` means; None for "none"."""
    if name == "none":
        return None
    if name not in _VGA:
        raise SpecError("video", f"must be one of none, {', '.join(_VGA)}", name)
    return _VGA[name]()
