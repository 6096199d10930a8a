"""Sound cards, and where their sound goes on the host (``-audiodev``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached, present
from pyvirt.devices.backend import boolean
from pyvirt.devices.usb import UsbDevice
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At

unsigned = fields.between(0, 0xFFFFFFFF)


@frozen
class Audio:
    """A host's sound system: "none" discards, "wav" records to `path`, "pa" is PulseAudio.

    `input` and `output` hold QEMU's own properties of either direction (``frequency``,
    ``channels``, ``format``, ``mixing-engine``, ...), `properties` the driver's.
    `timer_period` is in microseconds.
    """

    driver: str = field(default="none", validator=fields.name)
    path: Path | None = field(default=None, converter=fields.to_path, kw_only=True)
    server: str | None = field(default=None, validator=fields.optional(fields.text), kw_only=True)
    timer_period: int | None = field(
        default=None, validator=fields.optional(fields.positive), kw_only=True
    )
    input: Mapping[str, Any] | None = field(default=None, kw_only=True)
    output: Mapping[str, Any] | None = field(default=None, kw_only=True)
    properties: Mapping[str, Any] = field(
        factory=dict, validator=fields.kind(Mapping), kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        if self.path is not None and self.driver != "wav":
            raise SpecError("path", "belongs to the driver wav", str(self.path))
        if self.server is not None and self.driver != "pa":
            raise SpecError("server", "belongs to the driver pa", self.server)
        if self.driver == "spice" and (self.input or self.output):
            raise SpecError("driver", "takes no input or output properties", self.driver)

    def options(self, id: str) -> Iterator[Option]:
        """``-audiodev`` of that id."""
        given = {
            "path": None if self.path is None else str(self.path),
            "server": self.server,
            "timer-period": self.timer_period,
            "in": self.input,
            "out": self.output,
        }
        head = {"driver": self.driver, "id": id}
        yield Option("audiodev", {**head, **present(given), **self.properties}, "audio")


def audiodev_id(name: str, audio: Audio | str) -> str:
    """The id of the audiodev of the card `name`."""
    return audio if isinstance(audio, str) else f"{name}-audio"


@frozen(kw_only=True)
class Sound(Attached):
    """What sound cards share. `audio` is an `Audio`, or the id of another card's.

    QEMU makes audiodevs only when it starts, so only a card with another's is plugged later.
    """

    audio: Audio | str = field(factory=Audio, validator=fields.kind(Audio, str))

    PREFIX = "sound"

    def audiodev(self, at: At) -> Iterator[Option]:
        """The audiodev, unless it is another card's."""
        if isinstance(self.audio, Audio):
            yield from self.audio.options(audiodev_id(at.name, self.audio))


@frozen(kw_only=True)
class Hda(Sound):
    """Intel HD Audio of an ICH9 (or ICH6), with `codecs` "duplex", "micro" and "output"."""

    codecs: tuple[str, ...] = field(
        default=("duplex",),
        converter=fields.to_tuple,
        validator=fields.each(fields.choice("duplex", "micro", "output")),
    )
    model: str = field(
        default="ich9-intel-hda", validator=fields.choice("ich9-intel-hda", "intel-hda")
    )
    msi: str | None = field(
        default=None, validator=fields.optional(fields.choice("on", "off", "auto"))
    )
    mixer: bool | None = field(default=None, validator=fields.optional(boolean))
    use_timer: bool | None = field(default=None, validator=fields.optional(boolean))

    UNPLUGGABLE = False  # the bus of its codecs takes none later

    def __attrs_post_init__(self) -> None:
        if not 1 <= len(self.codecs) <= 15:
            raise SpecError("codecs", "must be 1 to 15: an HDA link has 15 addresses", self.codecs)

    @property
    def driver(self) -> str:
        return self.model

    def options(self, at: At) -> Iterator[Option | Need]:
        yield from self.audiodev(at)
        yield self.device(self.model, at, msi=self.msi)
        for number, codec in enumerate(self.codecs):
            yield self._codec(at, number, codec)

    def _codec(self, at: At, number: int, codec: str) -> Option:
        given = {
            "audiodev": audiodev_id(at.name, self.audio),
            "mixer": self.mixer,
            "use-timer": self.use_timer,
        }
        place = {"id": f"{at.name}-codec{number}", "bus": f"{at.name}.0", "cad": number}
        return Option("device", {"driver": f"hda-{codec}", **place, **present(given)}, "codecs")


@frozen(kw_only=True)
class _Card(Sound):
    """A card that is one device."""

    def options(self, at: At) -> Iterator[Option | Need]:
        yield from self.audiodev(at)
        yield self.device(self.DRIVER, at, audiodev=audiodev_id(at.name, self.audio))


@frozen(kw_only=True)
class Ac97(_Card):
    """Intel 82801AA AC97."""

    DRIVER = "AC97"


@frozen(kw_only=True)
class Es1370(_Card):
    """Ensoniq AudioPCI."""

    DRIVER = "ES1370"


@frozen(kw_only=True)
class Sb16(Sound):
    """Creative Sound Blaster 16, on ISA."""

    iobase: int | None = field(default=None, validator=fields.optional(unsigned))
    irq: int | None = field(default=None, validator=fields.optional(fields.choice(2, 5, 7, 10)))
    dma: int | None = field(default=None, validator=fields.optional(fields.choice(0, 1, 3)))
    dma16: int | None = field(default=None, validator=fields.optional(fields.choice(5, 6, 7)))

    DRIVER, BUS, UNPLUGGABLE = "sb16", "isa", False

    def options(self, at: At) -> Iterator[Option | Need]:
        yield from self.audiodev(at)
        yield self.device(
            self.DRIVER,
            at,
            audiodev=audiodev_id(at.name, self.audio),
            iobase=self.iobase,
            irq=self.irq,
            dma=self.dma,
            dma16=self.dma16,
        )


@frozen(kw_only=True)
class UsbAudio(UsbDevice):
    """A USB loudspeaker; `multi` lets it have up to 7.1 channels. `buffer` in bytes."""

    audio: Audio | str = field(factory=Audio, validator=fields.kind(Audio, str))
    multi: bool | None = field(default=None, validator=fields.optional(boolean))
    buffer: int | None = field(default=None, validator=fields.optional(unsigned))

    PREFIX, DRIVER = "sound", "usb-audio"

    def options(self, at: At) -> Iterator[Option | Need]:
        if isinstance(self.audio, Audio):
            yield from self.audio.options(audiodev_id(at.name, self.audio))
        audiodev = audiodev_id(at.name, self.audio)
        yield self.plugged(at, audiodev=audiodev, multi=self.multi, buffer=self.buffer)


@frozen(kw_only=True)
class VirtioSound(Sound):
    """virtio-sound, which QEMU has since 8.2."""

    jacks: int | None = field(default=None, validator=fields.optional(unsigned))
    streams: int | None = field(default=None, validator=fields.optional(fields.between(1, 64)))
    chmaps: int | None = field(default=None, validator=fields.optional(unsigned))

    DRIVER = "virtio-sound-pci"

    def options(self, at: At) -> Iterator[Option | Need]:
        yield from self.audiodev(at)
        yield self.device(
            at.virtio("sound"),
            at,
            audiodev=audiodev_id(at.name, self.audio),
            jacks=self.jacks,
            streams=self.streams,
            chmaps=self.chmaps,
        )
