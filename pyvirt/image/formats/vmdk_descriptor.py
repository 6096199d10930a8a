"""The descriptor of a VMDK: text that names the disk's parent and its extents.

Source: VMware's "Virtual Disk Format 5.0".

    CID=fffffffe
    parentCID=ffffffff
    createType="twoGbMaxExtentSparse"
    RW 4192256 SPARSE "disk-s001.vmdk"
    ddb.adapterType = "ide"
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from attrs import frozen

from pyvirt.errors import FeatureError
from pyvirt.image.structure import Place

SECTOR = 512
NO_PARENT = 0xFFFFFFFF
#: Bytes of a descriptor, as QEMU limits it.
MOST = 1 << 20

_EXTENT = re.compile(
    r'(RW|RDONLY|NOACCESS)[ \t]+(\d{1,19})[ \t]+([A-Z]+)(?:[ \t]+"([^"]*)")?(?:[ \t]+(\d{1,19}))?'
)
_SETTING = re.compile(r'([\w.]+)[ \t]*=[ \t]*(?:"([^"]*)"|(\S.*)?)')
_FLAT = ("FLAT", "VMFS")
_SPARSE = ("SPARSE", "VMFSSPARSE", "SESPARSE")
_MOST_SECTORS = 1 << 53


@frozen
class ExtentLine:
    """One line that names an extent; `size` and `offset` in sectors."""

    access: str
    size: int
    type: str
    filename: str | None
    offset: int

    @property
    def flat(self) -> bool:
        return self.type in _FLAT


@frozen
class Descriptor:
    """What a descriptor says."""

    version: int
    cid: int
    parent_cid: int
    create_type: str
    parent_file_name_hint: str | None
    extents: tuple[ExtentLine, ...]
    #: Everything else, the disk's data base included.
    settings: Mapping[str, str]

    @property
    def sectors(self) -> int:
        return sum(line.size for line in self.extents)


def looks_like(head: bytes) -> bool:
    """Whether QEMU would take a file that begins so for a descriptor."""
    for line in head[:4096].split(b"\n"):
        if line.startswith(b"#") or not line.strip(b" \r"):
            continue
        return line.rstrip(b"\r") in (b"version=1", b"version=2", b"version=3")
    return False


def descriptor(place: Place, data: bytes) -> Descriptor:
    """The descriptor in `data`, up to the first zero byte."""
    text = data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    settings: dict[str, str] = {}
    extents = []
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if found := _EXTENT.match(line):
            extents.append(_extent(place, number, found))
        elif not line.startswith("#") and (setting := _SETTING.match(line)):
            settings.setdefault(setting[1], setting[2] or setting[3] or "")
    return Descriptor(
        version=_number(place, settings, "version", 10, "1"),
        cid=_number(place, settings, "CID", 16),
        parent_cid=_number(place, settings, "parentCID", 16, f"{NO_PARENT:x}"),
        create_type=_needed(place, settings, "createType"),
        parent_file_name_hint=settings.pop("parentFileNameHint", None),
        extents=tuple(extents),
        settings=settings,
    )


def _extent(place: Place, number: int, found: re.Match[str]) -> ExtentLine:
    line = ExtentLine(found[1], int(found[2]), found[3], found[4], int(found[5] or 0))
    for reason in _faults(line, found[5] is not None):
        raise place.error(f"line {number} {reason}", found=found[0])
    unknown = line.type not in (*_FLAT, *_SPARSE, "ZERO")
    if unknown or line.access == "NOACCESS":
        raise FeatureError(place.path, "vmdk", (f"{line.access} extents of type {line.type}",))
    return line


def _faults(line: ExtentLine, has_offset: bool) -> Iterator[str]:
    if not 0 < line.size <= _MOST_SECTORS or line.offset > _MOST_SECTORS:
        yield "has a wrong size"
    if (line.filename is None and line.type != "ZERO") or line.filename == "":
        yield "names no file"
    if line.type == "FLAT" and not has_offset:
        yield "has no offset"


def _needed(place: Place, settings: dict[str, str], name: str, default: str | None = None) -> str:
    value = settings.pop(name, default)
    if value is None:
        raise place.error(f"lacks {name}")
    return value


def _number(
    place: Place, settings: dict[str, str], name: str, base: int, default: str | None = None
) -> int:
    value = _needed(place, settings, name, default)
    try:
        number = int(value, base)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 32:
        raise place.error(f"has a wrong {name}", found=value)
    return number
