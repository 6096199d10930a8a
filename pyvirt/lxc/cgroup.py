"""Limits in both cgroup layouts, and whether the kernel took them.

A controller is either in a hierarchy of its own (v1) or in the unified one (v2); a host may
mix them. liblxc ignores keys of the layout that a controller does not have, without a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attrs import field, frozen

from pyvirt.lxc.line import Line

#: The kernel rounds limits of memory to its pages, which are at most this large.
PAGE = 64 << 10

File = tuple[str, str]


@frozen
class Setting:
    """One limit: the files of `controller` to write in each layout, and what to write."""

    controller: str
    v1: tuple[File, ...]
    v2: tuple[File, ...]
    source: str

    def files(self, version: int) -> tuple[File, ...]:
        """What to write in cgroup version 1 or 2."""
        return self.v1 if version == 1 else self.v2


@frozen
class Layout:
    """Where each controller is: the mount of its hierarchy, for v1; `unified` has the rest.

    `inside` names the controllers of the unified hierarchy (``cgroup.controllers``).
    """

    hierarchies: Mapping[str, str] = field(factory=dict, hash=False)
    unified: str | None = None
    inside: frozenset[str] = frozenset()

    def version(self, controller: str) -> int | None:
        """1 or 2; None where this kernel has no such controller."""
        if controller in self.hierarchies:
            return 1
        return 2 if {"blkio": "io", "devices": "memory"}.get(controller, controller) in (
            self.inside
        ) else None

    def mounts(self) -> tuple[str, ...]:
        """Where all hierarchies are mounted."""
        all_ = (*self.hierarchies.values(), *([self.unified] if self.unified else []))
        return tuple(dict.fromkeys(all_))

    def mount(self, controller: str) -> str | None:
        """Where the files of `controller` are."""
        version = self.version(controller)
        if version is None:
            return None
        return self.hierarchies[controller] if version == 1 else self.unified


#: A host with nothing but cgroup v2, as systemd sets one up.
V2 = Layout({}, "/sys/fs/cgroup", frozenset({"cpu", "cpuset", "io", "memory", "pids"}))

#: A host with nothing but cgroup v1.
V1 = Layout(
    {
        name: f"/sys/fs/cgroup/{name}"
        for name in ("blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "memory", "pids")
    }
)


def layout(mountinfo: str, controllers: str = "") -> Layout:
    """The layout in the text of ``/proc/self/mountinfo`` (proc(5)) and ``cgroup.controllers``."""
    hierarchies: dict[str, str] = {}
    unified = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if not after:
            continue
        kind, _, options = after.split(" ", 2)
        place = before.split(" ")[4].encode().decode("unicode_escape")
        if kind == "cgroup2":
            unified = unified or place
        elif kind == "cgroup":
            for word in options.split(","):
                if word not in ("rw", "ro", "xattr", "noprefix", "clone_children"):
                    hierarchies.setdefault(word, place)
    return Layout(hierarchies, unified, frozenset(controllers.split()))


def lines(settings: Iterable[Setting], where: Layout) -> Iterator[Line]:
    """The configuration of `settings` on a host with this layout."""
    for setting in settings:
        version = where.version(setting.controller) or 2
        prefix = "lxc.cgroup." if version == 1 else "lxc.cgroup2."
        for name, value in setting.files(version):
            yield Line(prefix + name, value, source=setting.source)


def took(name: str, wanted: str, found: str) -> bool:
    """Whether a cgroup file `name`, into which `wanted` was written, says `found` for it."""
    if name.startswith("devices."):
        return True  # what may be opened is told by opening it
    if name.startswith("cpuset."):
        return _numbers(wanted) == _numbers(found)
    if name.startswith(("blkio.throttle.", "io.max")):
        return _device_line(wanted, found)
    if name.endswith("weight"):
        return wanted.split()[-1] == found.split()[-1] if found.split() else False
    if name.startswith("memory."):
        return _close(wanted, found)
    return wanted.split() == found.split()


def _close(wanted: str, found: str) -> bool:
    found = found.strip()
    return found.isdigit() and abs(int(found) - int(wanted)) < PAGE


def _numbers(text: str) -> set[int]:
    """The members of a list such as ``0-2,7``."""
    members: set[int] = set()
    for part in text.replace("\n", "").split(","):
        if part:
            low, _, high = part.partition("-")
            members |= set(range(int(low), int(high or low) + 1))
    return members


def _device_line(wanted: str, found: str) -> bool:
    device, *words = wanted.split()
    for line in found.splitlines():
        numbers, *values = line.split()
        if numbers == device:
            return set(words) <= set(values)
    return set(words) <= {"0"}
