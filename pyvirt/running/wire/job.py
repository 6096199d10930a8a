"""A job of QEMU that this program follows: a block job, or a migration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

from pyvirt.qmp import jobs
from pyvirt.qmp.jobs import BlockJob, Migration, Progress, Seen, Work
from pyvirt.running.wire.monitor import PATIENCE, Monitor


class Job:
    """Follow it with `progress`, wait for it, steer it. QEMU does it whoever follows."""

    def __init__(self, monitor: Monitor, work: Work) -> None:
        self.monitor, self.work = monitor, work

    @classmethod
    def start(
        cls,
        monitor: Monitor,
        name: str,
        arguments: Mapping[str, Any],
        *,
        fds: Iterable[int] = (),
        timeout: float | None = PATIENCE,
    ) -> Self:
        """Begin a block job with the command `name` ("blockdev-backup", "block-commit", ...)."""
        return cls(monitor, monitor.run(jobs.start(name, arguments, tuple(fds)), timeout))

    @classmethod
    def attach(cls, monitor: Monitor, id: str) -> Self:
        """The block job that QEMU knows as `id`."""
        return cls(monitor, BlockJob(id))

    @classmethod
    def migrate(
        cls,
        monitor: Monitor,
        uri: str,
        *,
        fd: int | None = None,
        timeout: float | None = PATIENCE,
    ) -> Self:
        """Begin to migrate to `uri`, or through the descriptor `fd`, which is then named so."""
        return cls(monitor, monitor.run(jobs.migrate(uri, fd), timeout))

    @classmethod
    def migration(cls, monitor: Monitor) -> Self:
        """The migration that is under way, out of or into this QEMU."""
        return cls(monitor, Migration())

    @property
    def id(self) -> str:
        return self.work.id

    def progress(self, *, timeout: float | None = PATIENCE) -> Progress:
        """Where it stands now; its status is in QEMU's words, "null" for one that is gone."""
        return self.monitor.run(self.work.look(), timeout)

    def wait(
        self,
        until: str | None = None,
        *,
        seen: Seen | None = None,
        timeout: float | None = None,
    ) -> Progress:
        """Wait until it has ended, or its status is `until` ("ready"); `JobError` if it failed.

        `seen` is called with its progress at each change of status and every second.
        """
        return self.monitor.run(self.work.wait(until, seen), timeout)

    def cancel(self, *, timeout: float | None = PATIENCE) -> Progress:
        """Give it up, and wait until it has ended."""
        return self.monitor.run(self.work.cancel(), timeout)

    def complete(self, *, timeout: float | None = None) -> Progress:
        """Have what is ready switch over, and wait until it has ended."""
        return self.monitor.run(self.work.complete(), timeout)

    def throttle(self, speed: int, *, timeout: float | None = PATIENCE) -> None:
        """Copy at most `speed` bytes a second."""
        self.monitor.run(self.work.throttle(speed), timeout)

    def __repr__(self) -> str:
        return f"<Job {self.id} of {self.monitor.peer}>"
