"""Workloads by their short names, as labels write them: "randread-4K-x16", "send-tcp"."""

from __future__ import annotations

import re
from pathlib import Path

from pyvirt.bench.fio import PATTERNS, Fio
from pyvirt.bench.iperf import DIRECTIONS, PROTOCOLS, Iperf, RoundTrip
from pyvirt.errors import SpecError

_SIZE = r"\d+[KMG]?"
_DISK = re.compile(
    rf"(?P<rw>{'|'.join(PATTERNS)})(?P<mix>\d+)?-(?P<bs>{_SIZE})(-x(?P<depth>\d+))?(-j(?P<jobs>\d+))?"
)
_TRIP = re.compile(rf"round-trip(-(?P<protocol>{'|'.join(PROTOCOLS)}))?(-(?P<bs>{_SIZE}))?")
_NET = re.compile(
    rf"(?P<direction>{'|'.join(DIRECTIONS)})(-(?P<protocol>{'|'.join(PROTOCOLS)}))?"
    rf"(-(?P<length>{_SIZE}))?(-mss(?P<mss>\d+))?(-p(?P<streams>\d+))?(?P<zero>-zerocopy)?"
)


def disk_workload(word: str) -> Fio:
    """What fio does: "write-1M-x4" is 4 sequential writes of 1 MiB in flight.

    The name of a file that ends in ``.fio`` is a job of the user's own.
    """
    if word.endswith(".fio"):
        return Fio(job=Path(word), name=Path(word).stem)
    found = _DISK.fullmatch(word)
    if found is None or (found["mix"] and found["rw"] not in ("rw", "randrw")):
        reason = f"must be like randread-4K-x16 (of {', '.join(PATTERNS)}) or a file *.fio"
        raise SpecError("workload", reason, word)
    return Fio(
        rw=found["rw"],
        bs=found["bs"],
        iodepth=int(found["depth"] or 1),
        numjobs=int(found["jobs"] or 1),
        mix=int(found["mix"] or 50),
    )


def net_workload(word: str) -> Iperf | RoundTrip:
    """What iperf3 does ("send", "receive-udp-1448", "send-tcp-p4-zerocopy"), or a round trip."""
    if found := _TRIP.fullmatch(word):
        bs, protocol = found["bs"] or "64", found["protocol"] or "tcp"
        return RoundTrip(bs, protocol=protocol)
    found = _NET.fullmatch(word)
    if found is None:
        reason = "must be like send-tcp, receive-udp-1448, send-tcp-p4-zerocopy or round-trip-tcp"
        raise SpecError("workload", reason, word)
    return Iperf(
        found["direction"],
        found["protocol"] or "tcp",
        length=found["length"] or 0,
        mss=int(found["mss"] or 0),
        streams=int(found["streams"] or 1),
        zero_copy=found["zero"] is not None,
    )
