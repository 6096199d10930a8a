"""Conversations about the network of a running VM: cables and forwarded ports.

QMP has no command for forwards, so they go through the human monitor, which answers with
words only when something is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address

from attrs import evolve

from pyvirt.errors import CommandError
from pyvirt.nic.forward import Forward
from pyvirt.qmp.flow import Command, Flow

# "Hub -1 (nic0-net):" begins the table of one user network; 10.0 has "Hub" as well.
_STACK = re.compile(r"^\S+ -?\d+ \((?P<netdev>.*)\):$")
_ROW = re.compile(
    r"^\s*(?P<proto>TCP|UDP)\[HOST_FORWARD\]\s+-?\d+"
    r"\s+(?P<host_address>\S+)\s+(?P<host>\d+)\s+(?P<guest_address>\S+)\s+(?P<guest>\d+)\s"
)


def set_link(card: str, up: bool) -> Flow[None]:
    """Plug the cable of network card `card` in, or pull it."""
    yield Command("set_link", {"name": card, "up": up})


def forwards(netdev: str) -> Flow[list[Forward]]:
    """What user network `netdev` forwards now, with the ports it really has."""
    text = yield from _human("info usernet")
    return list(listed(text, netdev))


def add_forward(netdev: str, forward: Forward) -> Flow[Forward]:
    """Forward one more port; the result has the port that was taken where 0 was asked for.

    Raises `CommandError` with QEMU's words.
    """
    before = (yield from forwards(netdev)) if forward.host == 0 else []
    answer = yield from _human(f"hostfwd_add {netdev} {forward.rule}")
    if answer:
        raise CommandError("hostfwd_add", "GenericError", answer)
    if forward.host:
        return forward
    now = yield from forwards(netdev)
    for other in now:
        if other not in before and _same_but_port(other, forward):
            return evolve(forward, host=other.host)
    raise CommandError("hostfwd_add", "GenericError", f"no port was taken for {forward.rule}")


def remove_forward(netdev: str, forward: Forward) -> Flow[None]:
    """Forward that port no longer. Raises `CommandError` when it was not."""
    answer = yield from _human(f"hostfwd_remove {netdev} {forward.listens}")
    if not answer.endswith(" removed"):
        raise CommandError("hostfwd_remove", "GenericError", answer)


def listed(text: str, netdev: str) -> Iterator[Forward]:
    """The forwards of `netdev` in what ``info usernet`` prints."""
    current = None
    for line in text.splitlines():
        stack, row = _STACK.match(line), _ROW.match(f"{line} ")
        if stack:
            current = stack["netdev"]
        elif row and current == netdev:
            yield Forward(
                int(row["host"]),
                int(row["guest"]),
                row["proto"].lower(),
                host_address=_address(row["host_address"]),
                guest_address=_address(row["guest_address"]),
            )


def _same_but_port(one: Forward, other: Forward) -> bool:
    ends = [(item.proto, item.guest, item.host_address) for item in (one, other)]
    return ends[0] == ends[1]


def _address(text: str) -> IPv4Address:
    # slirp prints "*" for 0.0.0.0.
    return IPv4Address("0.0.0.0" if text == "*" else text)


def _human(line: str) -> Flow[str]:
    answer: str = yield Command("human-monitor-command", {"command-line": line})
    return answer.strip()
