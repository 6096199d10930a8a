"""Structures of fixed layout: attrs values whose fields know where in the file they stand.

    @frozen
    class Header:
        magic: bytes = at(0, "4s")
        cluster_size: int = at(4, "I")

`parse(Header, data, "<")` reads one; `wrong(header, "cluster_size", "a power of two")` is the
error that names the field's place and what was found there.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar

import attrs
from attrs import frozen

from pyvirt.errors import ImageError
from pyvirt.image.source import Source, exactly

#: A field that is wrong, and what it should be.
Fault = tuple[str, str]

T = TypeVar("T", bound=attrs.AttrsInstance)


def at(offset: int, code: str, converter: Callable[[Any], Any] | None = None) -> Any:
    """A field `offset` bytes behind the structure's beginning; `code` as `struct` has it."""
    return attrs.field(converter=converter, metadata={"offset": offset, "code": code})


@cache
def _layout(kind: type[attrs.AttrsInstance], order: str) -> struct.Struct:
    """The fields in the order of their offsets, which is how they must be written down."""
    codes, end = [order], 0
    for field in attrs.fields(kind):
        offset, code = field.metadata["offset"], field.metadata["code"]
        codes += [f"{offset - end}x", code]
        end = offset + struct.calcsize(order + code)
    return struct.Struct("".join(codes))


def size(kind: type[attrs.AttrsInstance]) -> int:
    """Bytes from the structure's beginning to the end of its last field."""
    return _layout(kind, "<").size


def parse(kind: type[T], data: bytes, order: str, offset: int = 0) -> T:
    """The structure at `offset` of `data`, which must hold all of it."""
    return kind(*_layout(kind, order).unpack_from(data, offset))


def place(kind: type[attrs.AttrsInstance], field: str) -> int:
    """Where a field stands, counted from the structure's beginning."""
    offset: int = getattr(attrs.fields(kind), field).metadata["offset"]
    return offset


def string(data: bytes) -> str:
    """Text that ends at its first zero byte; what is no UTF-8 is kept as surrogates."""
    return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def guid(data: bytes) -> uuid.UUID:
    """A UUID as Microsoft writes it: its first three numbers are little-endian."""
    return uuid.UUID(bytes_le=data)


def power_of_two(number: int) -> bool:
    return number > 0 and not number & (number - 1)


def divided(size: int, unit: int) -> int:
    """How many units hold `size`."""
    return -(-size // unit)


@frozen
class Place:
    """A structure or table of one image, as errors name it."""

    path: str
    format: str
    table: str
    #: Where it begins in the file.
    offset: int = 0

    def table_at(self, offset: int, table: str | None = None) -> Place:
        """Another table of the same image."""
        return Place(self.path, self.format, table or self.table, offset)

    def read(self, kind: type[T], source: Source, order: str) -> T:
        """The structure here, or the error that the file ends before its end."""
        return parse(kind, exactly(source, size(kind), self.offset, self.table), order)

    def check(self, header: attrs.AttrsInstance, faults: Iterable[Fault]) -> None:
        """Raise the first of the `faults`: names of fields, and what they should be."""
        for field, expected in faults:
            raise self.wrong(header, field, expected)

    def wrong(self, header: attrs.AttrsInstance, field: str, expected: str) -> ImageError:
        """The error that `field` is not as `expected`."""
        where = self.offset + place(type(header), field)
        found = getattr(header, field)
        return self.error(f"has a wrong {field}", where, found=found, expected=expected)

    def error(
        self, reason: str, offset: int | None = None, *, found: Any = None, expected: Any = None
    ) -> ImageError:
        """Anything else that is wrong here."""
        return ImageError(
            self.path,
            reason,
            format=self.format,
            table=self.table,
            offset=self.offset if offset is None else offset,
            found=found,
            expected=expected,
        )
