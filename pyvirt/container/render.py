"""A description → the lines of its LXC configuration, for a host that is a value too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from attrs import frozen

from pyvirt.container.device import USUAL
from pyvirt.container.limits import Limits
from pyvirt.container.network import HostNetwork
from pyvirt.lxc import cgroup
from pyvirt.lxc.cgroup import Layout, Setting
from pyvirt.lxc.line import Line
from pyvirt.rootfs import IdMap

if TYPE_CHECKING:
    from pyvirt.container.container import Container

#: Where what pyvirt needs in a container lies: in /dev, which is memory and the container's own.
INSIDE = "dev/.pyvirt"


@frozen(kw_only=True)
class Host:
    """What only a start can know of the host, of this container's place on it and of its root.

    `idmap` is what "auto" came to. `devices` are the numbers of the described ones ("c 10:229").
    """

    name: str = "<name>"
    rootfs: str = "<rootfs>"
    options: tuple[str, ...] = ()
    place: str = "<place>"
    group: str = "<group>"
    layout: Layout = cgroup.V2
    apparmor: bool = True
    idmap: IdMap | str | None = "auto"
    devices: tuple[str, ...] | None = None
    init: str | None = None
    stop_signal: str | None = None
    hostname: str | None = None


def lines(container: Container, host: Host) -> Iterator[Line]:
    """The whole configuration."""
    for part in (_identity, _idmap, _rootfs, _mounts, _network, _process, _security, _devices):
        yield from part(container, host)
    yield from cgroup.lines(container.settings(), host.layout)
    for part in (_kernel, _life, _own, _raw):
        yield from part(container, host)


def checked(limits: Limits, layout: Layout) -> Iterator[tuple[Setting, str, str]]:
    """Each setting with a file of the layout, and what was to be written there."""
    for setting in limits.settings():
        for name, value in setting.files(layout.version(setting.controller) or 2):
            yield setting, name, value


def _identity(container: Container, host: Host) -> Iterator[Line]:
    name = container.hostname or host.hostname or container.name or host.name
    yield Line("lxc.uts.name", name, source="hostname" if container.hostname else "name")
    if container.architecture is not None:
        yield Line("lxc.arch", container.architecture, source="architecture")


def _idmap(container: Container, host: Host) -> Iterator[Line]:
    idmap = container.idmap if container.idmap != "auto" else host.idmap
    if isinstance(idmap, str):
        yield Line("lxc.idmap", "<idmap>", source="idmap")
    elif idmap is not None:
        for kind, ranges in (("u", idmap.uids), ("g", idmap.gids)):
            for each in ranges:
                numbers = f"{each.inside} {each.outside} {each.count}"
                yield Line("lxc.idmap", f"{kind} {numbers}", source="idmap")


def _rootfs(container: Container, host: Host) -> Iterator[Line]:
    yield Line("lxc.rootfs.path", host.rootfs, source="rootfs")
    options = (*host.options, *(("ro",) if container.readonly else ()))
    if options:
        source = "readonly" if container.readonly else "rootfs"
        yield Line("lxc.rootfs.options", ",".join(options), source=source)


def _mounts(container: Container, host: Host) -> Iterator[Line]:
    if container.nesting:
        yield Line("lxc.mount.auto", "proc:rw sys:rw cgroup:rw:force", source="nesting")
        for kind in ("proc", "sysfs"):  # unmasked, so that the kernel lets a nested one mount it
            where = f"{INSIDE}/{kind}"
            yield Line(
                "lxc.mount.entry", f"{kind} {where} {kind} create=dir,optional 0 0",
                source="nesting",
            )  # fmt: skip
    else:
        yield Line("lxc.mount.auto", "proc:mixed sys:mixed cgroup:mixed")
    for number, mount in enumerate(container.mounts):
        yield Line("lxc.mount.entry", mount.line(), source=f"mounts[{number}]")


def _network(container: Container, host: Host) -> Iterator[Line]:
    if not container.nics:
        yield Line("lxc.net.0.type", "empty", source="nics")
        yield Line("lxc.net.0.flags", "up", source="nics")
    for number, nic in enumerate(container.nics):
        source = f"nics[{number}]"
        if isinstance(nic, HostNetwork):
            yield Line("lxc.net.0.type", "none", source=source)
            continue
        for key, value in nic.items():
            yield Line(f"lxc.net.{number}.{key}", value, source=source)


def _process(container: Container, host: Host) -> Iterator[Line]:
    for name, value in container.env.items():
        yield Line("lxc.environment", f"{name}={value}", source="env")
    if host.init is not None:
        entry = f"{host.init} {INSIDE}/contain none bind,ro,create=file 0 0"
        yield Line("lxc.mount.entry", entry, source="command")
    elif container.init != "/sbin/init":
        yield Line("lxc.init.cmd", container.init, source="init")
    signal = container.stop_signal or host.stop_signal
    if signal is not None:
        source = "stop_signal" if container.stop_signal else ""
        yield Line("lxc.signal.halt", signal, source=source)


def _security(container: Container, host: Host) -> Iterator[Line]:
    if container.keep_capabilities is not None:
        kept = " ".join(container.keep_capabilities) or "none"
        yield Line("lxc.cap.keep", kept, source="keep_capabilities")
    if container.drop_capabilities:
        dropped = " ".join(container.drop_capabilities)
        yield Line("lxc.cap.drop", dropped, source="drop_capabilities")
    if container.seccomp is not None:
        yield Line("lxc.seccomp.profile", f"{host.place}/seccomp", source="seccomp")
    if container.apparmor is not None:
        yield Line("lxc.apparmor.profile", container.apparmor, source="apparmor")
        if container.nesting and host.apparmor:
            yield Line("lxc.apparmor.allow_nesting", "1", source="nesting")


def _devices(container: Container, host: Host) -> Iterator[Line]:
    old = host.layout.version("devices") == 1
    prefix = "lxc.cgroup.devices." if old else "lxc.cgroup2.devices."
    yield Line(f"{prefix}deny", "a", source="devices")
    for rule in USUAL:
        yield Line(f"{prefix}allow", rule, source="devices")
    for number, device in enumerate(container.devices):
        known = host.devices[number] if host.devices is not None else f"<{device.path}>"
        source = f"devices[{number}]"
        yield Line(f"{prefix}allow", f"{known} {device.access}", source=source)
        entry = f"{device.path} {device.inside} none bind,create=file 0 0"
        yield Line("lxc.mount.entry", entry, source=source)


def _kernel(container: Container, host: Host) -> Iterator[Line]:
    for name, value in container.rlimits.items():
        yield Line(f"lxc.prlimit.{name}", str(value), source="rlimits")
    for name, value in container.sysctls.items():
        yield Line(f"lxc.sysctl.{name}", str(value), source="sysctls")


def _life(container: Container, host: Host) -> Iterator[Line]:
    start = container.autostart
    if start is not None:
        yield Line("lxc.start.auto", "1", source="autostart")
        yield Line("lxc.start.order", str(start.order), source="autostart")
        yield Line("lxc.start.delay", str(start.delay), source="autostart")
        for group in start.groups:
            yield Line("lxc.group", group, source="autostart")
    for name, programs in container.hooks.items():
        for program in programs:
            yield Line(f"lxc.hook.{name}", program, source="hooks")


def _own(container: Container, host: Host) -> Iterator[Line]:
    """Where pyvirt finds again what is said and used."""
    yield Line("lxc.cgroup.dir.container", f"{host.group}/payload")
    yield Line("lxc.cgroup.dir.monitor", f"{host.group}/monitor")
    yield Line("lxc.cgroup.dir.monitor.pivot", f"{host.group}/pivot")
    yield Line("lxc.pty.max", "1024")  # without it there is no /dev/ptmx
    yield Line("lxc.console.logfile", f"{host.place}/console")
    yield Line("lxc.log.file", f"{host.place}/log")
    yield Line("lxc.log.level", "INFO")  # the level at which it tells how the first process ended


def _raw(container: Container, host: Host) -> Iterator[Line]:
    for key, values in container.raw.items():
        for value in values:
            yield Line(key, str(value), source="raw")
