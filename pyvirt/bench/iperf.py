"""Network workloads: iperf3 for throughput, fio's ping-pong for round trips; their reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.bench import fio
from pyvirt.bench.figure import Figure, known
from pyvirt.errors import GuestError, SpecError
from pyvirt.fields import frozen

PROTOCOLS = ("tcp", "udp")
DIRECTIONS = ("send", "receive", "both")


def _protocol(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    known(attribute.name, value, PROTOCOLS)


def _direction(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    known(attribute.name, value, DIRECTIONS)


@frozen
class Iperf:
    """iperf3 for `runtime` seconds; `direction` is what the guest does.

    `length` is the bytes of each write, or of each packet of UDP; 0 is iperf3's own choice.
    `streams` run in parallel; `zero_copy` sends without copying (``-Z``); `rate` limits UDP
    to so many bits a second, 0 does not. `mss` bounds the segments of TCP.
    """

    direction: str = field(default="send", validator=_direction)
    protocol: str = field(default="tcp", validator=_protocol)
    length: int = field(
        default=0, converter=fields.to_size, validator=fields.between(0, 1 << 20), kw_only=True
    )
    streams: int = field(default=1, validator=fields.between(1, 128), kw_only=True)
    zero_copy: bool = field(default=False, validator=fields.kind(bool), kw_only=True)
    rate: int = field(default=0, validator=fields.between(0, 2**63 - 1), kw_only=True)
    mss: int = field(default=0, validator=fields.between(0, 65000), kw_only=True)
    runtime: int = field(default=1, validator=fields.between(1, 86400), kw_only=True)
    name: str = field(default="", validator=fields.text, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.protocol == "udp" and self.length > 65507:
            raise SpecError("length", "must be at most 65507 for UDP", self.length)
        for option in ("zero_copy", "mss"):
            if self.protocol == "udp" and getattr(self, option):
                raise SpecError(option, "is for TCP", getattr(self, option))

    @property
    def label(self) -> str:
        """A short name: "send-tcp-zerocopy"."""
        if self.name:
            return self.name
        words = [self.direction, self.protocol]
        words += [f"{fields.sized(self.length)}"] if self.length else []
        words += [f"mss{self.mss}"] if self.mss else []
        words += [f"p{self.streams}"] if self.streams > 1 else []
        return "-".join([*words, *(["zerocopy"] if self.zero_copy else [])])

    @property
    def seconds(self) -> float:
        return float(self.runtime)

    @property
    def countable(self) -> bool:
        """Whether it can be run for an exact number of bytes."""
        return self.protocol == "tcp" and self.direction != "both"

    def argv(self, address: str, port: int, size: int = 0) -> list[str]:
        """The client's words; with `size`, it moves so many bytes and then ends."""
        words = ["iperf3", "--json", "--client", address, "--port", str(port)]
        words += ["--bytes", str(size)] if size else ["--time", str(self.runtime)]
        words += {"send": [], "receive": ["--reverse"], "both": ["--bidir"]}[self.direction]
        if self.protocol == "udp":
            words += ["--udp", "--bitrate", str(self.rate)]
        for flag, value in (("--length", self.length), ("--set-mss", self.mss)):
            words += [flag, str(value)] if value else []
        words += ["--parallel", str(self.streams)] if self.streams > 1 else []
        return [*words, *(["--zerocopy"] if self.zero_copy else [])]


def figures(report: Mapping[str, Any]) -> Iterator[Figure]:
    """What iperf3's JSON says. `GuestError` with its own words when it failed."""
    if "error" in report:
        raise GuestError("iperf3", str(report["error"]))
    end = report["end"]
    moved = [end[key] for key in ("sum_received", "sum_received_bidir_reverse") if key in end]
    moved = moved or [end["sum"]]
    if not any(part["bytes"] for part in moved):
        raise GuestError("iperf3", "nothing arrived")
    arrived = sum(part["bits_per_second"] * _arrived(part) for part in moved)
    yield Figure("throughput", arrived / 8, "B/s")
    if "retransmits" in end.get("sum_sent", {}):
        yield Figure("retransmits", end["sum_sent"]["retransmits"], "1")
    if "jitter_ms" in end.get("sum", {}):
        packets = end["sum"]
        yield Figure("jitter", packets["jitter_ms"] / 1000, "s")
        yield Figure("loss", packets["lost_percent"] / 100, "1")
        yield Figure("packets", packets["packets"] * _arrived(packets) / packets["seconds"], "1/s")


def _arrived(part: Mapping[str, Any]) -> float:
    """The share that was not lost: of UDP, iperf3 gives the sender's bytes where both are one."""
    return 1 - part.get("lost_percent", 0) / 100 if part.get("sender") else 1.0


def transferred(report: Mapping[str, Any]) -> int:
    """The bytes that arrived."""
    if "error" in report:
        raise GuestError("iperf3", str(report["error"]))
    return int(report["end"]["sum_received"]["bytes"])


@frozen
class RoundTrip:
    """A message of `bs` bytes goes to the other end and back, one after another.

    fio's ``net`` engine does it for `runtime` seconds; the figures are those of the whole way.
    """

    bs: int = field(default=64, converter=fields.to_size, validator=fields.between(1, 65507))
    protocol: str = field(default="tcp", validator=_protocol, kw_only=True)
    runtime: float = field(default=1.0, validator=fields.positive, kw_only=True)
    name: str = field(default="", validator=fields.text, kw_only=True)

    @property
    def label(self) -> str:
        return self.name or f"round-trip-{self.protocol}-{fields.sized(self.bs)}"

    @property
    def seconds(self) -> float:
        return self.runtime

    @property
    def countable(self) -> bool:
        return False

    def server(self, port: int) -> list[str]:
        """The words of the other end, which serves one client."""
        listen = ["--listen"] if self.protocol == "tcp" else []
        return [*self._common(port), "--rw=read", *listen, "--output=/dev/null"]

    def argv(self, address: str, port: int) -> list[str]:
        """The words of the end that measures."""
        own = ["--rw=write", f"--hostname={address}", "--lat_percentiles=1"]
        listing = f"--percentile_list={':'.join(fio.PERCENTILES)}"
        time = ["--time_based", f"--runtime={round(self.runtime * 1000)}ms"]
        return [*self._common(port), *own, listing, *time, "--output-format=json"]

    def _common(self, port: int) -> list[str]:
        kind = ["--ioengine=net", f"--protocol={self.protocol}", "--pingpong=1"]
        if self.protocol == "tcp":
            kind.append("--nodelay=1")
        return ["fio", "--name=job", *kind, f"--port={port}", f"--bs={self.bs}", "--size=1g"]


def round_trips(report: Mapping[str, Any]) -> Iterator[Figure]:
    """The latencies and the rate of round trips in fio's report."""
    for figure in fio.figures(report):
        if figure.metric.startswith("latency") or figure.metric == "iops":
            yield figure
