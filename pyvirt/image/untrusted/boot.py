"""Partition tables as the tools write them: anything else at this place is there for a reason."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pyvirt.image.source import Source
from pyvirt.image.untrusted.verdict import Reason

_TABLE, _ENTRIES = 446, 4
_PROTECTIVE = 0xEE


def reasons(source: Source) -> Iterator[Reason]:
    """What is wrong with the master boot record of `source`, which has its signature."""
    head = source.pread(8192, 0).ljust(8192, b"\0")
    used, gpt = [], False
    for number in range(_ENTRIES):
        place = _TABLE + 16 * number
        active, chs, kind, _, first, _ = struct.unpack_from("<B3sB3sII", head, place)
        if active not in (0, 0x80):
            yield Reason("boot-record", place, f"partition {number + 1} has a wrong boot flag")
        if kind:
            used.append(number)
        if kind == _PROTECTIVE:
            gpt = True
            if chs != b"\0\2\0" or first != 1:
                yield Reason("boot-record", place, "the protective partition does not start at 1")
    if not used:
        yield Reason(
            "boot-record", _TABLE, "it has the signature of a boot record, but no partition"
        )
    if gpt and used != [0]:
        yield Reason("boot-record", _TABLE, "there are partitions beside that which protects a GPT")
    if gpt and b"EFI PART" not in (head[512:520], head[4096:4104]):
        yield Reason("boot-record", 512, "the boot record protects a GPT that is not there")
