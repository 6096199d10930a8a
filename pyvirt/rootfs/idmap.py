"""Which users of the host the users of a container are: uid_map(5) of user_namespaces(7)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen

_ID = fields.between(0, 0xFFFF_FFFE)  # the last number is "no user" to Linux


@frozen
class IdRange:
    """`count` ids: from `inside` on in the container, from `outside` on in the host."""

    inside: int = field(validator=_ID)
    outside: int = field(validator=_ID)
    count: int = field(validator=fields.between(1, 0xFFFF_FFFF))


@frozen
class IdMap:
    """The ranges of user and group ids. Those of one kind must not overlap."""

    uids: tuple[IdRange, ...] = field(converter=fields.to_tuple)
    gids: tuple[IdRange, ...] = field(converter=fields.to_tuple)

    @uids.validator
    @gids.validator
    def _apart(self, field: attrs.Attribute[Any], value: tuple[IdRange, ...]) -> None:
        for side in ("inside", "outside"):
            ranges = sorted((getattr(each, side), each.count) for each in value)
            for (first, count), (second, _) in pairwise(ranges):
                if first + count > second:
                    raise SpecError(field.name, f"must not overlap {side}", second)

    def uid(self, inside: int) -> int | None:
        """The host's number of a container's user; None when it has none."""
        return _outside(self.uids, inside)

    def gid(self, inside: int) -> int | None:
        """The host's number of a container's group; None when it has none."""
        return _outside(self.gids, inside)


def _outside(ranges: Iterable[IdRange], inside: int) -> int | None:
    for each in ranges:
        if each.inside <= inside < each.inside + each.count:
            return each.outside + inside - each.inside
    return None
