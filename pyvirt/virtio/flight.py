"""Which chains the device holds, from copies of the avail and the used ring."""

from __future__ import annotations

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

    `avail` and `used` are the heads of the last `size` entries of each ring, oldest first.
    Chains complete in any order, and the rings do not say which entry of one belongs to which
    of the other. A head that was made available once more often than it was used is in flight;
    one with as many entries is, if its first one was older than the ring. The indexes tell how
    many there must be: where that leaves no choice, the answer is certain.
    """
    count = (avail_idx - used_idx) & 0xFFFF
    if count > size:
        return InFlight((), count, certain=False)
    ranked = sorted(_rank(avail, used, size, count).items(), key=lambda one: one[1], reverse=True)
    chosen = ranked[:count]
    sure = [head for head, (surplus, *_) in ranked if surplus == 1]
    last = _last(avail)
    ids = sorted((head for head, _ in chosen), key=lambda head: last[head])
    certain = len(sure) == count or (len(ranked) == len(chosen) == count)
    return InFlight(tuple(ids), count, certain)


def _last(heads: Sequence[int]) -> dict[int, int]:
    return {head: place for place, head in enumerate(heads)}


def _rank(
    avail: Sequence[int], used: Sequence[int], size: int, count: int
) -> dict[int, tuple[int, int, int]]:
    """Of each head that may be in flight: entries in surplus, and how likely it came last.

    Entry k of the used ring was written when between k and k + size chains had been made
    available, most likely `count` more than now.
    """
    given, taken = _count(avail), _count(used)
    last_given, last_taken = _last(avail), _last(used)
    # Both windows end at their index, and those are `count` apart.
    apart = count + len(used) - len(avail)
    ranks = {}
    for head, times in given.items():
        surplus = times - taken.get(head, 0)
        gap = last_given[head] + apart - last_taken.get(head, -size)
        if surplus >= 0:
            ranks[head] = (min(surplus, 1), gap, last_given[head])
    return ranks


def _count(heads: Sequence[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for head in heads:
        counts[head] = counts.get(head, 0) + 1
    return counts
