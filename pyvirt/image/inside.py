"""What is inside a disk: partitions, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from pyvirt.errors import PyvirtError
from pyvirt.image.detection import detect
from pyvirt.image.filesystems import Volume, volumes
from pyvirt.image.partitions import Flaw, Partition, Table, partition_table
from pyvirt.image.region import Disk, Region

#: Disks inside disks that are followed.
MOST_NESTED = 4
#: Disks, partitions and nested disks that are looked into; a table can have thousands.
MOST_PARTS = 256
#: Formats that are told as volumes, or are none.
NO_CONTAINERS = {"raw", "iso9660", "luks"}


@frozen
class Part:
    """A partition, or the whole disk (`partition` is None), with what it holds."""

    partition: Partition | None
    #: File systems and the like; several if several have left their signature.
    volumes: tuple[Volume, ...]
    #: The format of the disk image that it holds, if it looks like one.
    image: str | None = None
    #: What is in that image, if asked for.
    inside: Inside | None = None


@frozen
class Inside:
    """The partition table of a disk, if it has one, and everything found."""

    table: Table | None
    parts: tuple[Part, ...]
    #: Why something was not followed, beside the flaws of the table.
    flaws: tuple[Flaw, ...] = ()

    def find(self, kind: str) -> Iterator[tuple[Part, Volume]]:
        """All volumes of a kind, such as "ext4", wherever they are."""
        for part in self.parts:
            yield from ((part, one) for one in part.volumes if one.kind == kind)
            if part.inside is not None:
                yield from part.inside.find(kind)


def inside(disk: Disk, *, nested: bool = False) -> Inside:
    """What `disk` holds. With `nested`, images in it are opened too; they open no other file."""
    return _Search().inside(Region(disk), MOST_NESTED if nested else 0)


class _Search:
    """Knows how many parts may still be looked at: partitions may overlap, and hold each other."""

    def __init__(self) -> None:
        self.left = MOST_PARTS

    def inside(self, region: Region, depth: int) -> Inside:
        table = partition_table(region)
        flaws = list(table.flaws) if table is not None else []
        whole = self.part(region, None, depth, flaws)
        # The whole disk is told of when there is something on it besides the table.
        parts = [whole] if table is None or whole.volumes or whole.image else []
        for one in (*table.partitions, *table.hybrid) if table is not None else ():
            if not self.left:
                sentence = f"only {MOST_PARTS} parts are looked at"
                flaws.append(Flaw("too-many", one.start, sentence))
                break
            part = Region(region, one.start, one.size)
            parts.append(self.part(part, one, depth, flaws))
        return Inside(table, tuple(parts), tuple(flaws))

    def part(
        self, region: Region, partition: Partition | None, depth: int, flaws: list[Flaw]
    ) -> Part:
        self.left -= 1
        format = detect(region)[0].format if region.size else "raw"
        image = None if format in NO_CONTAINERS else format
        below = None
        if image and depth and self.left:
            below = self.nested(region, image, depth, flaws)
        return Part(partition, volumes(region), image, below)

    def nested(self, region: Region, format: str, depth: int, flaws: list[Flaw]) -> Inside | None:
        from pyvirt.image.image import Image  # An image can be inside of one.

        try:
            with Image(region, format) as image:
                return self.inside(Region(image), depth - 1)
        except PyvirtError as error:
            flaws.append(Flaw("nested", region.start, f"the {format} image inside: {error}"))
            return None
