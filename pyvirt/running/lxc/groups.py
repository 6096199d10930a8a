"""The control groups of one container: found, read, checked, removed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from pyvirt.container import Limits
from pyvirt.container.render import checked
from pyvirt.errors import LimitError, UnsupportedError
from pyvirt.lxc import cgroup
from pyvirt.lxc.cgroup import Layout

#: The hierarchy by which everything in a container is found: tried in this order.
_WHOLE = ("freezer", "memory", "pids")


#: Seconds that dead processes get to leave their groups.
LEAVING = 2.0


class Groups:
    """The groups `name` in all hierarchies of `layout`."""

    def __init__(self, layout: Layout, name: str) -> None:
        self.layout, self.name = layout, name
        self._base = _base(layout)

    def directories(self) -> tuple[Path, ...]:
        """One in each hierarchy; they hold payload, monitor and pivot."""
        return tuple(Path(mount + self._base, self.name) for mount in self.layout.mounts())

    @property
    def whole(self) -> Path:
        """The group with every process of the container, in one hierarchy."""
        for controller in _WHOLE:
            if controller in self.layout.hierarchies:
                return Path(self.layout.hierarchies[controller], self.name, "payload")
        return Path((self.layout.unified or "/sys/fs/cgroup") + self._base, self.name, "payload")

    def file(self, controller: str, name: str) -> Path | None:
        """A file of the container's group; None where the kernel has no such controller."""
        mount = self.layout.mount(controller)
        return None if mount is None else Path(mount + self._base, self.name, "payload", name)

    def read(self, controller: str, name: str) -> str | None:
        """What a file of the container's group says; None where there is none."""
        path = self.file(controller, name)
        with suppress(OSError):
            return None if path is None else path.read_text()
        return None

    def above(self, path: Path) -> str:
        """What the group above that of the file `path` has there; nothing in v2, where that
        means the same."""
        if any(path.is_relative_to(mount) for mount in self.layout.hierarchies.values()):
            return (path.parent.parent / path.name).read_text().strip()
        return ""

    def verify(self, limits: Limits) -> None:
        """Raise `LimitError` for the first limit that the kernel did not take."""
        for setting, name, value in checked(limits, self.layout):
            found = self.read(setting.controller, name) or ""
            if not cgroup.took(name, value, found):
                path = self.file(setting.controller, name) or name
                raise LimitError(setting.source, str(path), value, found)

    def verify_raw(self, raw: Mapping[str, tuple[str, ...]]) -> None:
        """The same for limits that were given as keys: liblxc drops those of another layout."""
        for key, values in raw.items():
            kind, _, name = key.removeprefix("lxc.").partition(".")
            if kind not in ("cgroup", "cgroup2") or name.startswith("dir."):
                continue
            controller = name.partition(".")[0]
            version = self.layout.version(controller)
            right = version == (1 if kind == "cgroup" else 2)
            found = (self.read(controller, name) if right else None) or ""
            if not right or not cgroup.took(name, values[-1], found):
                hint = f"this kernel has {controller} in cgroup v{version}"
                raise LimitError(f"raw[{key!r}]", name, values[-1], found if right else hint)

    def support(self, limits: Limits) -> None:
        """Raise `UnsupportedError` for a limit that this kernel cannot set, before any start."""
        for setting, name, _ in checked(limits, self.layout):
            mount = self.layout.mount(setting.controller)
            missing = mount is None
            if mount is not None and self.layout.version(setting.controller) == 1:
                missing = not _known(Path(mount), name)
            if missing:
                hint = f"leave {setting.source} away"
                raise UnsupportedError(f"the cgroup file {name}", "this kernel", hint)

    def remove(self) -> None:
        """Remove what liblxc left: groups are only directories once nothing runs in them."""
        remove(self.directories())


def _known(mount: Path, name: str) -> bool:
    """Whether groups of a v1 hierarchy have this file: its root may lack it, so look further."""
    if (mount / name).exists():
        return True
    with suppress(OSError):
        children = (entry.path for entry in os.scandir(mount) if entry.is_dir())
        return any(os.path.exists(f"{child}/{name}") for child in children)
    return False


def remove(directories: Iterable[Path]) -> None:
    """Remove empty groups, and those in them.

    A process leaves its group only a moment after it is seen to be dead.
    """
    deadline = time.monotonic() + LEAVING
    left = [top for top in directories if not _removed(top)]
    while left and time.monotonic() < deadline:
        time.sleep(0.001)
        left = [top for top in left if not _removed(top)]


def _removed(top: Path) -> bool:
    for path, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            os.rmdir(path)
    return not top.exists()


def _base(layout: Layout) -> str:
    """Where liblxc makes groups: at the root for root, else beside this process's own."""
    if os.geteuid() == 0 or layout.unified is None:
        return ""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:].rstrip("/")
    return ""
