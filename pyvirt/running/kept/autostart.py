"""Kept containers that start with their host."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pyvirt.container import Autostart
from pyvirt.running.kept.kept import Kept
from pyvirt.running.lxc.store import Store
from pyvirt.running.rootfs.watch import Progress


def autostart(
    store: Store | None = None, group: str | None = None, *, progress: Progress | None = None
) -> Iterator[str]:
    """Start those that are described so and do not run, detached; each name once it does.

    The highest order is first, as with lxc-autostart(1), and equals go by name; the delay of
    each passes before the next. With `group`, only those of that group.
    """
    wait = 0
    for start, kept in sorted(_wanted(store, group), key=lambda each: -each[0].order):
        if kept.state != "stopped":
            continue
        time.sleep(wait)
        kept.start(progress=progress, detach=True).close()
        wait = start.delay
        yield kept.name


def _wanted(store: Store | None, group: str | None) -> Iterator[tuple[Autostart, Kept]]:
    for kept in Kept.all(store=store):
        start = kept.container.autostart
        if start is not None and (group is None or group in start.groups):
            yield start, kept
