"""What QEMU does in the background, block jobs and migration alike, as flows.

A block job runs through these states (qapi/job.json); a job with an error goes to "aborting"
and "concluded" instead, and a "concluded" one stays until it is dismissed:

    created -> running <-> paused;  running -> ready (mirror, active commit) <-> standby
    running, ready -> waiting -> pending -> concluded -> null (gone)

A migration goes none -> setup -> active -> device -> completed, failed or cancelled.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from attrs import frozen

from pyvirt.errors import CommandError, JobError, TimedOut
from pyvirt.qmp.flow import Command, Flow, Until

LOOK = 1.0
"""Seconds after which a waiting flow looks itself, should no event tell it to."""

_DISMISSED = frozenset({"blockdev-backup", "blockdev-mirror", "block-commit", "block-stream",
                        "drive-backup", "drive-mirror"})  # fmt: skip
_numbers = itertools.count(1)


@frozen
class Progress:
    """How far a job is: `current` of `total`, in units (mostly bytes) that may still grow."""

    status: str
    current: int = 0
    total: int = 0
    error: str | None = None

    @property
    def fraction(self) -> float:
        """Between 0 and 1; 0 while the total is not known."""
        return min(1.0, self.current / self.total) if self.total else 0.0


Seen = Callable[[Progress], None]


class Work(Protocol):
    """A job of either kind. `wait` ends at one of the statuses `until`, or when it ended."""

    @property
    def id(self) -> str: ...
    def look(self) -> Flow[Progress]: ...
    def wait(self, until: str | None, seen: Seen | None) -> Flow[Progress]: ...
    def cancel(self) -> Flow[Progress]: ...
    def complete(self) -> Flow[Progress]: ...
    def throttle(self, speed: int) -> Flow[None]: ...


@frozen
class BlockJob:
    """A job that QEMU knows by its id (``query-jobs``)."""

    id: str

    def look(self) -> Flow[Progress]:
        """Where it stands; its status is "null" when there is no such job."""
        for job in (yield Command("query-jobs")):
            if job["id"] == self.id:
                current, total = job["current-progress"], job["total-progress"]
                return Progress(job["status"], current, total, job.get("error"))
        return Progress("null")

    def wait(self, until: str | None = None, seen: Seen | None = None) -> Flow[Progress]:
        """Wait until its status is `until`, or else until it has ended; then dismiss it.

        `JobError` when it ended with an error, or was gone before its end was seen.
        """
        while True:
            now = yield from self.look()
            if seen is not None:
                seen(now)
            if now.status == "concluded":
                yield Command("job-dismiss", {"id": self.id})
                return self._ended(now)
            if now.status == "null":
                return self._ended((yield from self._last_seen()))
            if now.status == until:
                return now
            with suppress(TimedOut):
                yield Until("JOB_STATUS_CHANGE", {"id": self.id}, timeout=LOOK)

    def cancel(self) -> Flow[Progress]:
        """End it as soon as possible, whatever it has done, and wait until it has ended."""
        try:
            yield Command("job-cancel", {"id": self.id})
        except CommandError:
            # It may have ended by itself; then it has only to be dismissed.
            if (yield from self.look()).status not in ("concluded", "null"):
                raise
        try:
            return (yield from self.wait())
        except JobError:
            return Progress("concluded", error="cancelled")

    def complete(self) -> Flow[Progress]:
        """Have a job that is ready switch over, and wait until it has ended."""
        yield Command("job-complete", {"id": self.id})
        return (yield from self.wait())

    def throttle(self, speed: int) -> Flow[None]:
        """Copy at most `speed` bytes a second; 0 is without limit."""
        yield Command("block-job-set-speed", {"device": self.id, "speed": speed})

    def _last_seen(self) -> Flow[Progress]:
        """How a job that dismissed itself ended, if that was told in the meantime."""
        try:
            told = yield Until("BLOCK_JOB_COMPLETED", {"device": self.id}, timeout=0)
        except TimedOut:
            raise JobError(self.id, "is gone, how it ended was not seen") from None
        data = told.data
        return Progress("null", data["offset"], data["len"], data.get("error"))

    def _ended(self, now: Progress) -> Progress:
        if now.error is not None:
            raise JobError(self.id, now.error)
        return now


def start(name: str, arguments: Mapping[str, Any], fds: tuple[int, ...] = ()) -> Flow[BlockJob]:
    """Begin a job with command `name`; it stays in QEMU until its end was seen.

    Its id is the "job-id" given, or a short new one.
    """
    job = BlockJob(arguments.get("job-id") or f"job{next(_numbers)}")
    kept = {"auto-dismiss": False} if name in _DISMISSED else {}
    yield Command(name, {**kept, **arguments, "job-id": job.id}, fds)
    return job


@frozen
class Migration:
    """The migration of a QEMU, outgoing or incoming: there is one at a time."""

    id: str = "migration"

    def look(self) -> Flow[Progress]:
        """Where it stands, in bytes of guest memory."""
        now = yield Command("query-migrate")
        memory = now.get("ram", {})
        current = memory.get("total", 0) - memory.get("remaining", 0)
        return Progress(
            now.get("status", "none"), current, memory.get("total", 0), now.get("error-desc")
        )

    def wait(self, until: str | None = None, seen: Seen | None = None) -> Flow[Progress]:
        """Wait until its status is `until`, or else until it has ended.

        `JobError` when it failed or was cancelled.
        """
        while True:
            now = yield from self.look()
            if seen is not None:
                seen(now)
            if now.status in (until, "completed"):
                return now
            if now.status in ("failed", "cancelled"):
                raise JobError(self.id, now.error or now.status)
            with suppress(TimedOut):
                yield Until("MIGRATION", timeout=LOOK)

    def cancel(self) -> Flow[Progress]:
        """Stop it; the guest goes on where it is. It may have completed before."""
        yield Command("migrate_cancel")
        now = yield from self.look()
        if now.status == "none":
            return now
        try:
            return (yield from self.wait())
        except JobError as error:
            return Progress("cancelled", error=error.reason)

    def complete(self) -> Flow[Progress]:
        """Let one that is held before its switch-over go on, and wait until it has ended."""
        yield Command("migrate-continue", {"state": "pre-switchover"})
        return (yield from self.wait())

    def throttle(self, speed: int) -> Flow[None]:
        """Send at most `speed` bytes a second."""
        yield Command("migrate-set-parameters", {"max-bandwidth": speed})


def migrate(uri: str, fd: int | None = None) -> Flow[Migration]:
    """Begin to migrate to `uri`, or through the descriptor `fd` (then `uri` names it)."""
    events = {"capability": "events", "state": True}
    yield Command("migrate-set-capabilities", {"capabilities": [events]})
    if fd is not None:
        yield Command("getfd", {"fdname": uri}, (fd,))
        uri = f"fd:{uri}"
    yield Command("migrate", {"uri": uri})
    return Migration()
