"""What changes while a container runs: its limits, devices, mounts and interfaces."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from pyvirt.container import Bind, HostDevice, Limits, Physical
from pyvirt.container.limits import ABOVE, lifted, limits_of
from pyvirt.container.mount import Filesystem
from pyvirt.container.render import checked
from pyvirt.errors import ContainerError, SpecError
from pyvirt.lxc.cgroup import Setting
from pyvirt.running.lxc import entering, host, mounts
from pyvirt.running.lxc.engine import LOCK, Engine

#: Limits of which a container has one at most.
_OTHER = {"cpus": "cpu_quota", "cpu_quota": "cpus"}


def limit(engine: Engine, changes: Mapping[str, Any]) -> Limits:
    """Set the limits of `changes`, and lift those that are None there; all that it has then."""
    names = [field.name for field in attrs.fields(Limits)]
    for name in changes:
        if name not in names:
            raise SpecError(name, f"must be one of {', '.join(names)}", changes[name])
    with engine.store.lock(engine.name, LOCK):
        before = engine.container
        asked, gone = _asked(before, changes)
        kept = {k: v for k, v in limits_of(before).items()
                if k not in gone and _OTHER.get(k) not in limits_of(asked)}  # fmt: skip
        whole = Limits(**{**kept, **limits_of(asked)})
        engine.groups.support(asked)
        for setting in lifted(gone, before):
            _lift(engine, setting)
        _set(engine, asked)
        engine.container = attrs.evolve(before, **_all(whole))
    return whole


def _asked(before: Limits, changes: Mapping[str, Any]) -> tuple[Limits, set[str]]:
    """What is to be set, and the names of what is to be lifted."""
    given = {name: value for name, value in changes.items() if value not in (None, (), [])}
    gone = set(changes) - set(given) | ({"io"} & set(changes))
    if "memory" in gone and "swap" not in given:
        gone.add("swap")  # which counts on top of it
    if "memory" in given and "swap" not in changes and before.swap is not None:
        given["swap"] = before.swap  # v1 counts both in one number
    if "swap" in given:
        given.setdefault("memory", None if "memory" in gone else before.memory)
    return Limits(**given), gone


def _all(limits: Limits) -> dict[str, Any]:
    return {field.name: getattr(limits, field.name) for field in attrs.fields(Limits)}


def _set(engine: Engine, asked: Limits) -> None:
    for setting, name, value in _ordered(engine, asked):
        _write(engine, setting, name, value)
    engine.groups.verify(asked)


def _lift(engine: Engine, setting: Setting) -> None:
    groups = engine.groups
    for name, value in setting.files(groups.layout.version(setting.controller) or 2):
        path = groups.file(setting.controller, name)
        if path is None or not path.exists():
            continue  # no kernel limits what it does not know
        _write(engine, setting, name, groups.above(path) if value == ABOVE else value)


def _write(engine: Engine, setting: Setting, name: str, value: str) -> None:
    if not engine.handle.set_group(name, value):
        found = engine.groups.read(setting.controller, name) or ""
        raise ContainerError(engine.name, f"setting {setting.source}", _said(found, value))


def _ordered(engine: Engine, asked: Limits) -> list[Any]:
    """Memory and swap together have a limit in v1, which memory alone must never pass: what
    raises both begins with the sum."""
    steps = list(checked(asked, engine.groups.layout))
    raised = (asked.memory or 0) > (engine.container.memory or 0)
    if raised and engine.container.swap is not None:
        steps.sort(key=lambda step: step[1] != "memory.memsw.limit_in_bytes")
    return steps


def _said(found: str, value: str) -> str:
    return f"the kernel refuses {value!r}, and it stays {found.strip()!r}"


def plug(engine: Engine, part: HostDevice | Filesystem | Physical) -> str:
    """Give the container `part`; what it is known by there."""
    with engine.store.lock(engine.name, LOCK):
        if isinstance(part, HostDevice):
            return _plug_device(engine, part)
        if isinstance(part, Filesystem):
            return _mount(engine, part)
        if isinstance(part, Physical):
            name = part.name or part.link
            if not engine.handle.attach_interface(part.link, name):
                raise engine.refused(f"plugging interface {part.link}")
            return name
    raise SpecError("part", "must be HostDevice, a mount or Physical", part)


def unplug(engine: Engine, part: HostDevice | Filesystem | Physical) -> None:
    """Take `part` back."""
    with engine.store.lock(engine.name, LOCK):
        if isinstance(part, HostDevice):
            _unplug_device(engine, part)
        elif isinstance(part, Filesystem):
            _run(engine, ["umount", part.target], f"unplugging {part.target}")
        elif isinstance(part, Physical):
            name = part.name or part.link
            if not engine.handle.detach_interface(name, part.link):
                raise engine.refused(f"unplugging interface {name}")
        else:
            raise SpecError("part", "must be HostDevice, a mount or Physical", part)


def _plug_device(engine: Engine, device: HostDevice) -> str:
    """A bind mount serves also where the kernel lets nobody make nodes, in user namespaces."""
    rule = f"{host.numbers(device, 'part')} {device.access}"
    what = f"plugging {device.path}"
    if not engine.handle.set_group("devices.allow", rule):
        raise engine.refused(what)
    try:
        return _mount(engine, Bind(device.path, f"/{device.inside}", file=True))
    except BaseException:
        engine.handle.set_group("devices.deny", rule)
        raise


def _unplug_device(engine: Engine, device: HostDevice) -> None:
    what = f"unplugging {device.path}"
    _run(engine, ["umount", f"/{device.inside}"], what)
    rule = f"{host.numbers(device, 'part')} {device.access}"
    if not engine.handle.set_group("devices.deny", rule):
        raise engine.refused(what)


def _mount(engine: Engine, part: Filesystem) -> str:
    fd = mounts.opened(part)
    try:
        kind = "file" if getattr(part, "file", False) else "dir"
        _run(engine, [str(entering.ALSO), part.target, kind], f"plugging {part.target}", fd)
    finally:
        os.close(fd)
    return part.target


def _run(engine: Engine, words: list[str], what: str, also: int = -1) -> None:
    code = engine.enter("mounter", words, also).result()
    if code != 0:
        why = os.strerror(code) if code > 0 else f"signal {-code}"
        raise ContainerError(engine.name, what, why)
