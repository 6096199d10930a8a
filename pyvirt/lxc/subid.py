"""Ranges of ids that a user may give to containers: subuid(5), subgid(5)."""

from __future__ import annotations

from attrs import frozen


@frozen
class SubIds:
    """`count` ids of the host, from `first` on."""

    first: int
    count: int


def ranges(text: str, user: str, uid: int) -> list[SubIds]:
    """The ranges of `user`, by name or by number, in the text of ``/etc/subuid``."""
    found = []
    for line in text.splitlines():
        owner, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if owner in (user, str(uid)) and first.isdigit() and count.strip().isdigit():
            found.append(SubIds(int(first), int(count)))
    return found


def largest(found: list[SubIds]) -> SubIds | None:
    """The range with most ids."""
    return max(found, key=lambda one: one.count, default=None)
