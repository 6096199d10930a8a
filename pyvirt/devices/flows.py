"""What can be changed on the devices of a running guest: flows, which do no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from pyvirt.devices.watchdog import ACTIONS
from pyvirt.errors import SpecError, TimedOut
from pyvirt.qmp.flow import Command, Flow, Pause, Until

PERIPHERAL = "/machine/peripheral"

#: QEMU's mark for a statistic that the guest did not send (-1 as a uint64).
ABSENT = 0xFFFFFFFFFFFFFFFF


def set_balloon(size: int) -> Flow[None]:
    """Ask the guest to live with `size` bytes. It obeys when, and as far as, it can."""
    if size <= 0:
        raise SpecError("size", "must be positive", size)
    yield Command("balloon", {"value": size})


def balloon() -> Flow[int]:
    """The bytes of memory that the guest has now."""
    answer = yield Command("query-balloon")
    return int(answer["actual"])


def settle_balloon(size: int, timeout: float | None) -> Flow[int]:
    """Ask for `size` bytes and wait until the guest has given or taken all; what it has then.

    Raises `TimedOut` when `timeout` seconds pass without a change before it gets there.
    """
    yield from set_balloon(size)
    actual = yield from balloon()
    while actual != size:
        # QEMU sends this event at most once a second, the last change included.
        yield Until("BALLOON_CHANGE", {}, timeout)
        actual = yield from balloon()
    return actual


@frozen
class BalloonStatistics:
    """What the guest last said of its memory.

    `updated` is in seconds since the epoch, of the guest's last answer. `values` holds the
    statistics by QEMU's names without ``stat-``, in bytes where they are sizes; only what
    this guest sends is there.
    """

    updated: int
    values: Mapping[str, int]


def balloon_statistics(id: str) -> Flow[BalloonStatistics]:
    """The last statistics from balloon `id`; empty before the guest's first answer."""
    path = f"{PERIPHERAL}/{id}"
    answer = yield Command("qom-get", {"path": path, "property": "guest-stats"})
    values = {
        name.removeprefix("stat-"): int(value)
        for name, value in answer["stats"].items()
        if value not in (-1, ABSENT)
    }
    return BalloonStatistics(int(answer["last-update"]), values)


def poll_balloon(id: str, interval: int) -> Flow[None]:
    """Collect the statistics of balloon `id` every `interval` seconds; 0 stops that."""
    if interval < 0:
        raise SpecError("interval", "must not be negative", interval)
    property = {"property": "guest-stats-polling-interval", "value": interval}
    yield Command("qom-set", {"path": f"{PERIPHERAL}/{id}", **property})


def fresh_statistics(id: str, timeout: float, pause: float = 0.1) -> Flow[BalloonStatistics]:
    """Statistics that are newer than those that were there, looked for every `pause` seconds.

    Raises `TimedOut` when the guest sends none within `timeout` seconds of pauses.
    """
    before = yield from balloon_statistics(id)
    for _ in range(max(1, round(timeout / pause))):
        yield Pause(pause)
        now = yield from balloon_statistics(id)
        if now.updated > before.updated:
            return now
    raise TimedOut(f"statistics of balloon {id}", timeout, "the guest sent none")


def set_watchdog_action(action: str) -> Flow[None]:
    """Change what happens when a watchdog is not fed."""
    if action not in ACTIONS:
        raise SpecError("action", f"must be one of {', '.join(ACTIONS)}", action)
    yield Command("set-action", {"watchdog": action})


def set_vnc_password(
    password: str, *, display: str | None = None, expires: str | None = None
) -> Flow[None]:
    """Set the password of a VNC server that asks for one.

    `display` is the id of the server, where there are several. `expires` is "never", "now",
    "+seconds", or seconds since the epoch.
    """
    if len(password.encode()) > 8:
        raise SpecError("password", "must have at most 8 bytes: VNC ignores the rest", "…")
    which = {} if display is None else {"display": display}
    yield Command("set_password", {"protocol": "vnc", "password": password, **which})
    if expires is not None:
        yield Command("expire_password", {"protocol": "vnc", "time": expires, **which})


def set_spice_password(
    password: str, *, connected: str = "keep", expires: str | None = None
) -> Flow[None]:
    """Set the password of the SPICE server; `connected` clients: "keep", "disconnect", "fail"."""
    ticket: dict[str, Any] = {"protocol": "spice", "password": password, "connected": connected}
    yield Command("set_password", ticket)
    if expires is not None:
        yield Command("expire_password", {"protocol": "spice", "time": expires})
