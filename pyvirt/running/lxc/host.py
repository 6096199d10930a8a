"""What this host has for containers, read when one starts."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from pyvirt.container import Bind, Container, HostDevice, IdMap, IdRange
from pyvirt.container.network import HostNetwork, Physical, Veth
from pyvirt.errors import SpecError, UnsupportedError
from pyvirt.lxc import cgroup, subid
from pyvirt.lxc.cgroup import Layout
from pyvirt.running.lxc.library import supports, version

#: Keys of which liblxc knows only the beginning.
_FAMILIES = ("lxc.cgroup.", "lxc.cgroup2.", "lxc.net.", "lxc.prlimit.", "lxc.proc.", "lxc.sysctl.")

#: How many ids a container is given: what distributions hand out, and what "nobody" needs.
IDS = 65536


def layout() -> Layout:
    """Where this host's cgroup controllers are."""
    mounts = Path("/proc/self/mountinfo").read_text()
    found = cgroup.layout(mounts)
    if found.unified is None:
        return found
    names = Path(found.unified, "cgroup.controllers").read_text()
    return cgroup.layout(mounts, names)


def apparmor() -> bool:
    """Whether this kernel confines by AppArmor."""
    try:
        return Path("/sys/module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False


def idmap(container: Container) -> IdMap | None:
    """The described id map, or what "auto" comes to. Raises where it could not work."""
    wanted = container.idmap
    if wanted is None:
        if os.geteuid() != 0:
            raise UnsupportedError("a privileged container", "this process", "run it as root")
        return None
    found = _automatic() if not isinstance(wanted, IdMap) else wanted
    if isinstance(wanted, IdMap):
        _check_owned(wanted)
    if found is not None:
        _check_user(container, found)
    return found


def _automatic() -> IdMap | None:
    """The ranges of whoever asks; None for a root without any, who needs none."""
    uids, gids = (subid.largest(_ranges(kind)) for kind in ("uid", "gid"))
    if uids and gids and min(uids.count, gids.count) >= IDS:
        return IdMap((IdRange(0, uids.first, IDS),), (IdRange(0, gids.first, IDS),))
    if os.geteuid() == 0:
        return None
    return _refuse(f"a range of {IDS} ids", "uid" if not uids or uids.count < IDS else "gid")


def _check_owned(wanted: IdMap) -> None:
    """newuidmap(1), where it is installed, maps only what /etc/subuid gives, also to root."""
    if os.geteuid() == 0 and shutil.which("newuidmap") is None:
        return
    for kind, ranges in (("uid", wanted.uids), ("gid", wanted.gids)):
        owned = _ranges(kind)
        for each in ranges:
            inside = (o for o in owned if o.first <= each.outside)
            if not any(each.outside + each.count <= o.first + o.count for o in inside):
                what = f"the range of {each.count} ids from {each.outside} on"
                _refuse(what, kind, each.outside, each.count)


def _refuse(what: str, kind: str, first: int = 100000, count: int = IDS) -> NoReturn:
    line = f"{_user()}:{first}:{count}"
    hint = f"add the line {line!r} to it (usermod --add-sub{kind}s does that)"
    raise UnsupportedError(f"{what} for {_user()}", f"/etc/sub{kind}", hint)


def _ranges(kind: str) -> list[subid.SubIds]:
    try:
        text = Path(f"/etc/sub{kind}").read_text("utf-8", "replace")
    except FileNotFoundError:
        return []
    return subid.ranges(text, _user(), os.geteuid())


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _check_user(container: Container, found: IdMap) -> None:
    for word, look in zip((container.user or "").split(":"), (found.uid, found.gid), strict=False):
        if word.isdigit() and look(int(word)) is None:
            raise SpecError("user", "must be in the idmap of the container", container.user)


def devices(container: Container) -> tuple[str, ...]:
    """The numbers of the described devices, as cgroups write them."""
    return tuple(numbers(each, f"devices[{i}]") for i, each in enumerate(container.devices))


def numbers(device: HostDevice, source: str) -> str:
    """ "c 10:229" and the like; `UnsupportedError` for a device that this host does not have."""
    try:
        found = os.stat(device.path)
    except FileNotFoundError:
        hint = f"{source} names it: plug it in, or load its driver"
        raise UnsupportedError(f"device {device.path}", "this host", hint) from None
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise SpecError(f"{source}.path", "must be a device", device.path)
    letter = "c" if stat.S_ISCHR(found.st_mode) else "b"
    return f"{letter} {os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def check(container: Container) -> None:
    """Raise for what the description needs and this host does not have."""
    for source, link in _links(container):
        if not Path("/sys/class/net", link).exists():
            hint = f"{source} names it: ip link shows those there are"
            raise UnsupportedError(f"interface {link}", "this host", hint)
    for i, mount in enumerate(container.mounts):
        origin, kind, options = mount.entry()
        if kind == "none" and "optional" not in options and not os.path.lexists(origin):
            raise SpecError(f"mounts[{i}].source", "must exist on this host", origin)
        of_file = os.path.exists(origin) and not os.path.isdir(origin)
        if isinstance(mount, Bind) and of_file and not mount.file:
            raise SpecError(f"mounts[{i}].file", "must be true for what is no directory", False)
    for key in container.raw:
        if not key.startswith(_FAMILIES) and not supports(key):
            raise UnsupportedError(f"the key {key}", f"liblxc {version()}", "check its spelling")
    if container.apparmor not in (None, "unconfined") and not apparmor():
        raise UnsupportedError("AppArmor", "this kernel", "leave apparmor away")


def _links(container: Container) -> Iterator[tuple[str, str]]:
    for i, nic in enumerate(container.nics):
        if isinstance(nic, HostNetwork):
            continue
        if isinstance(nic, Veth):
            if nic.bridge is not None:
                yield f"nics[{i}].bridge", nic.bridge
        elif link := getattr(nic, "link", None):
            yield f"nics[{i}].link", link
            if isinstance(nic, Physical) and link == "lo":
                raise SpecError(f"nics[{i}].link", "must not be the loopback", link)
