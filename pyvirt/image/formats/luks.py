"""LUKS headers, versions 1 and 2: what is encrypted, how, and where it lies.

Sources: "LUKS1 On-Disk Format Specification 1.2.3" and "LUKS2 On-Disk Format Specification
1.1.1". A LUKS2 header is stored twice; the copy with its checksum and the greater sequence
number counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec
from attrs import frozen

from pyvirt._native.columns import Columns
from pyvirt.image.budget import Budget
from pyvirt.image.extents import Extents, Flag
from pyvirt.image.formats.blocks import DATA, SECTOR
from pyvirt.image.layer import Match, Reference, Shown, Siblings
from pyvirt.image.source import Source, exactly, name_of
from pyvirt.image.structure import Fault, Place, at, parse, string

MAGIC, MAGIC_2ND = b"LUKS\xba\xbe", b"SKUL\xba\xbe"
ENABLED, DISABLED = 0x00AC71F3, 0x0000DEAD
_KEY_SLOTS, _KEY_SLOT = 208, 48
_BINARY = 4096
#: Sizes that a LUKS2 header may have, JSON area included.
_SIZES = [0x4000 << n for n in range(9)]


@frozen
class KeySlot:
    """A place for the master key; `key_material_offset` in sectors."""

    active: int = at(0, "I")
    iterations: int = at(4, "I")
    salt: bytes = at(8, "32s")
    key_material_offset: int = at(40, "I")
    stripes: int = at(44, "I")

    @property
    def enabled(self) -> bool:
        return self.active == ENABLED


@frozen
class Header1:
    """The header of version 1; `payload_offset` in sectors, `key_bytes` in bytes."""

    magic: bytes = at(0, "6s")
    version: int = at(6, "H")
    cipher_name: str = at(8, "32s", string)
    cipher_mode: str = at(40, "32s", string)
    hash_spec: str = at(72, "32s", string)
    payload_offset: int = at(104, "I")
    key_bytes: int = at(108, "I")
    mk_digest: bytes = at(112, "20s")
    mk_digest_salt: bytes = at(132, "32s")
    mk_digest_iter: int = at(164, "I")
    uuid: str = at(168, "40s", string)


@frozen
class Header2:
    """The binary header of version 2; sizes and offsets in bytes."""

    magic: bytes = at(0, "6s")
    version: int = at(6, "H")
    hdr_size: int = at(8, "Q")
    seqid: int = at(16, "Q")
    label: str = at(24, "48s", string)
    csum_alg: str = at(72, "32s", string)
    salt: bytes = at(104, "64s")
    uuid: str = at(168, "40s", string)
    subsystem: str = at(208, "48s", string)
    hdr_offset: int = at(256, "Q")
    csum: bytes = at(448, "64s")


@frozen
class Info1:
    """What a LUKS1 image says of itself."""

    header: Header1
    key_slots: tuple[KeySlot, ...]


@frozen
class Info2:
    """What a LUKS2 image says of itself; `metadata` is the content of its JSON area."""

    header: Header2
    metadata: dict[str, Any]
    #: One of the two copies of the header is broken.
    damaged: bool


class LuksLayer(Shown):
    """The encrypted bytes of a LUKS image."""

    format = "luks"
    references: tuple[Reference, ...] = ()

    def __init__(
        self, source: Source, info: Info1 | Info2, offset: int, size: int, sector: int
    ) -> None:
        self.info, self.size, self.block = info, size, sector
        self.sources = (source,)
        #: Where the encrypted bytes begin.
        self.offset = offset

    def extents(self, start: int = 0, stop: int | None = None) -> Extents:
        """One extent: everything is stored, and encrypted."""
        stop = self.size if stop is None else min(stop, self.size)
        columns = Columns(1)
        if start < stop:
            flags = DATA | Flag.ENCRYPTED
            columns.add(start, stop - start, self.offset + start, flags)
        return Extents(columns)

    def inflate(self, data: bytes, size: int) -> bytes:
        """There is nothing to unpack."""
        raise ValueError("luks has no compressed blocks")


def probe(head: bytes, size: int, tail: bytes) -> Match | None:
    if head.startswith(MAGIC) and head[6:8] in (b"\0\1", b"\0\2"):
        return Match("luks", 98, f"begins with 'LUKS\\xba\\xbe' and version {head[7]}")
    for start in _SIZES:
        if head[start : start + 8] == MAGIC_2ND + b"\0\2":
            return Match("luks", 60, f"has the second header of a LUKS2 image at byte {start}")
    return None


def open(source: Source, *, budget: Budget, siblings: Siblings) -> LuksLayer:
    place = Place(name_of(source), "luks", "header")
    if exactly(source, 8, 0, "header") == MAGIC + b"\0\1":
        return _luks1(place, source)
    return _luks2(place, source)


# -- Version 1 --------------------------------------------------------------------------------


def _luks1(place: Place, source: Source) -> LuksLayer:
    header = place.read(Header1, source, ">")
    place.check(header, _faults1(header, source.size))
    slots = []
    for number in range(8):
        here = place.table_at(_KEY_SLOTS + _KEY_SLOT * number, f"key slot {number}")
        slot = here.read(KeySlot, source, ">")
        here.check(slot, _slot_faults(slot, header, source.size))
        slots.append(slot)
    offset = header.payload_offset * SECTOR
    info = Info1(header, tuple(slots))
    return LuksLayer(source, info, offset, (source.size - offset) // SECTOR * SECTOR, SECTOR)


def _faults1(header: Header1, size: int) -> Iterator[Fault]:
    if header.payload_offset * SECTOR > size:
        yield "payload_offset", f"at most {size // SECTOR}"
    if not 0 < header.key_bytes <= 1024:
        yield "key_bytes", "1 to 1024"
    for name in ("cipher_name", "cipher_mode", "hash_spec"):
        if not getattr(header, name):
            yield name, "a name"


def _slot_faults(slot: KeySlot, header: Header1, size: int) -> Iterator[Fault]:
    if slot.active not in (ENABLED, DISABLED):
        yield "active", f"{ENABLED} or {DISABLED}"
    elif slot.enabled:
        if not 0 < slot.stripes <= 1 << 16:
            yield "stripes", "1 to 65536"
        end = slot.key_material_offset * SECTOR + slot.stripes * header.key_bytes
        if slot.key_material_offset < 2 or end > size:
            yield "key_material_offset", "behind the header, inside the file"


# -- Version 2 --------------------------------------------------------------------------------


def _luks2(place: Place, source: Source) -> LuksLayer:
    place = place.table_at(0, "binary header")
    first = _copy(source, 0, MAGIC)
    starts = [first[0].hdr_size] if first else _SIZES
    second = next(filter(None, (_copy(source, start, MAGIC_2ND) for start in starts)), None)
    copies = [copy for copy in (first, second) if copy]
    if not copies:
        raise place.error("has no copy with its checksum")
    header, text = max(copies, key=lambda copy: copy[0].seqid)
    info = Info2(header, _metadata(place, header, text), len(copies) < 2)
    return _layer2(place.table_at(header.hdr_offset + _BINARY, "JSON area"), source, info)


def _copy(source: Source, start: int, magic: bytes) -> tuple[Header2, bytes] | None:
    """A header and its JSON area, if its checksum is right."""
    binary = source.pread(_BINARY, start)
    if len(binary) < _BINARY or not binary.startswith(magic + b"\0\2"):
        return None
    header = parse(Header2, binary, ">")
    if header.hdr_size not in _SIZES or header.hdr_offset != start:
        return None
    text = source.pread(header.hdr_size - _BINARY, start + _BINARY)
    if header.csum_alg not in ("sha1", "sha256", "sha384", "sha512"):
        return None
    blank = binary[:448] + bytes(64) + binary[512:]
    digest = hashlib.new(header.csum_alg, blank + text, usedforsecurity=False).digest()
    return (header, text) if header.csum.startswith(digest) else None


def _metadata(place: Place, header: Header2, text: bytes) -> dict[str, Any]:
    area = place.table_at(header.hdr_offset + _BINARY, "JSON area")
    try:
        found = msgspec.json.decode(text.partition(b"\0")[0])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise area.error("is no JSON", found=error) from None
    if not isinstance(found, dict):
        raise area.error("is no JSON object")
    return found


def _layer2(place: Place, source: Source, info: Info2) -> LuksLayer:
    """The first segment that is encrypted."""
    for segment in _crypt_segments(place, info.metadata):
        sector = segment.get("sector_size", SECTOR)
        if sector not in (512, 1024, 2048, 4096):
            raise place.error("has a wrong sector_size", found=sector, expected="512 to 4096")
        offset = _decimal(place, segment, "offset")
        dynamic = segment.get("size") == "dynamic"
        size = source.size - offset if dynamic else _decimal(place, segment, "size")
        if offset < 0 or size < 0 or offset + size > source.size:
            raise place.error("has a segment beyond the end of the file", found=offset)
        return LuksLayer(source, info, offset, size // sector * sector, sector)
    raise place.error("has no encrypted segment")


def _crypt_segments(place: Place, metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    segments = metadata.get("segments")
    if not isinstance(segments, dict):
        raise place.error("has no segments")
    for _, segment in sorted(segments.items()):
        if isinstance(segment, dict) and segment.get("type") == "crypt":
            yield segment


def _decimal(place: Place, segment: dict[str, Any], name: str) -> int:
    """Numbers of 64 bits are strings in the JSON area."""
    value = segment.get(name)
    if not isinstance(value, str) or not (value.isascii() and value.isdigit()) or len(value) > 19:
        raise place.error(f"has a wrong {name}", found=value)
    return int(value)
