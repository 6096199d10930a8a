"""Which chains the device holds, from copies of the avail and the used ring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pyvirt.virtio.state import InFlight


def windows(
    avail: Sequence[int], used: Sequence[int], avail_idx: int, used_idx: int
) -> tuple[Sequence[int], Sequence[int]]:
    """The entries of both rings, oldest first, of `avail` and `used` as they are in memory.

    Indexes start at 0 and wrap at 65536, so a small one does not tell whether the slots behind
    it were ever written. Those of a young ring are zeros.
    """
    return _written(avail, avail_idx), _written(used, used_idx)


def _written(entries: Sequence[int], index: int) -> Sequence[int]:
    if index <= len(entries) and not any(entries[index:]):
        return entries[:index]
    start = index % len(entries)
    return [*entries[start:], *entries[:start]]


def held(
    size: int, avail_idx: int, used_idx: int, avail: Sequence[int], used: Sequence[int]
) -> InFlight:
    """The heads that are available and not used.

    `avail` and `used` are the heads of the last entries of each ring, oldest first (`windows`).
    Chains complete in any order, and the rings do not say which entry of one belongs to which
    of the other. Until one of them goes around, counting tells. After that, only of some heads
    it is sure on which side they are; the indexes tell how many are in flight, and the most
    likely heads are taken.
    """
    count = (avail_idx - used_idx) & 0xFFFF
    if count > size:
        return InFlight((), count, certain=False)
    whole = avail_idx == len(avail) and used_idx == len(used)
    ranks = _rank(avail, used, size, count, whole)
    ranked = sorted(ranks, key=lambda head: ranks[head], reverse=True)[:count]
    last = _last(avail)
    ranked.sort(key=lambda head: last[head])
    sure = tuple(head for head in ranked if ranks[head][0])
    return InFlight(tuple(ranked), count, len(sure) == count, sure)


def ordered(size: int, avail_idx: int, used_idx: int, avail: Sequence[int]) -> InFlight:
    """The same where IN_ORDER was agreed on: the newest ones, whatever the used ring has."""
    count = (avail_idx - used_idx) & 0xFFFF
    if count > size:
        return InFlight((), count, certain=False)
    ids = tuple(avail[((used_idx + n) & 0xFFFF) % size] for n in range(count))
    return InFlight(ids, count, certain=True, sure=ids)


def _last(heads: Sequence[int]) -> dict[int, int]:
    return {head: place for place, head in enumerate(heads)}


def _rank(
    avail: Sequence[int], used: Sequence[int], size: int, count: int, whole: bool
) -> dict[int, tuple[bool, int, int]]:
    """Of each head that may be in flight: whether it must be, and how likely it is.

    When used entry k was written, more than k and at most k + size chains had been made
    available: an avail entry behind those is newer. The same goes for the newest used entry
    that is not seen, if there is one.
    """
    given, taken = Counter(avail), Counter(used)
    last_given, last_taken = _last(avail), _last(used)
    apart = count + len(used) - len(avail)  # avail entry i and used entry i, in indexes
    ranks = {}
    for head, times in given.items():
        surplus = times - taken[head]
        gap = last_given[head] + apart - last_taken.get(head, -1)
        if (gap <= 0 and head in taken) or (whole and surplus <= 0):
            continue  # used after it was last made available
        ranks[head] = (whole or gap >= size, min(surplus, 1), gap)
    return ranks
