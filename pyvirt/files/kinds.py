"""What a field takes, as its annotation says: classes of descriptions, and plain values."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs

from pyvirt.container.mount import Filesystem
from pyvirt.container.network import Interface
from pyvirt.devices.backend import Backend as CharacterBackend
from pyvirt.disk.node import BlockNode
from pyvirt.machine.firmware import Bios
from pyvirt.nic.address import Address
from pyvirt.nic.backend import Backend as NetworkBackend
from pyvirt.qemu.part import Part
from pyvirt.rootfs import RootFS

#: Where the classes of descriptions are found by name.
_HOMES = ("device", "disk", "nic", "machine", "devices", "boot", "guest")

#: What stands for a family of classes, and where that lives.
FAMILIES: Mapping[Any, tuple[str, ...]] = {
    Part: ("device", "disk", "nic", "machine", "devices"),
    BlockNode: ("disk",),
    Bios: ("machine",),
    Address: ("nic",),
    NetworkBackend: ("nic",),
    CharacterBackend: ("devices",),
    RootFS: ("rootfs",),
    Filesystem: ("container",),
    Interface: ("container",),
}

#: What a table is in a field that takes several classes, when it does not say.
USUAL = {"disks": "Disk", "serials": "Serial"}


@cache
def hints(cls: type) -> Mapping[str, Any]:
    """The annotation of each field of a description."""
    return get_type_hints(cls)


def alternatives(hint: Any) -> Iterator[Any]:
    """The members of a union, or the one type that it is; ``tuple[X, ...]`` stays whole."""
    if get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            yield from alternatives(member)
    else:
        yield hint


def accepts(hint: Any, *wanted: type) -> bool:
    """Whether a value of one of these plain types is among what `hint` allows."""
    return any((get_origin(one) or one) in wanted for one in alternatives(hint))


def item(hint: Any) -> Any:
    """What each item of a list must be."""
    found = (get_args(one) for one in alternatives(hint) if get_origin(one) is tuple)
    return next((arguments[0] for arguments in found if arguments), Any)


def entry(hint: Any) -> tuple[Any, Any]:
    """What keys and values of a mapping must be."""
    found = (get_args(one) for one in alternatives(hint) if get_origin(one) is Mapping.__mro__[0])
    return next(found, (str, Any))


def classes(hint: Any) -> list[Any]:
    """The classes of descriptions in `hint`, families as such."""
    return [one for one in alternatives(hint) if one in FAMILIES or _is_description(one)]


def only(hint: Any) -> Any:
    """The class, when only one is possible; else None."""
    found = classes(hint)
    return found[0] if len(found) == 1 and found[0] not in FAMILIES else None


def named(name: str, hint: Any) -> Any:
    """The class called `name` among what `hint` allows; None when there is none."""
    for one in classes(hint):
        if one not in FAMILIES:
            if one.__name__ == name:
                return one
            continue
        for home in FAMILIES[one]:
            found = _at(home, name)
            if found is not None and _belongs(found, one):
                return found
    return None


def names(hint: Any) -> list[str]:
    """All that `named` finds."""
    found = {one.__name__ for one in classes(hint) if one not in FAMILIES}
    for family in classes(hint):
        for home in FAMILIES.get(family, ()):
            found |= {name for name in _public(home) if named(name, family) is not None}
    return sorted(found)


def anywhere(name: str) -> Any:
    """The description class called `name`, wherever it is: QEMU's properties take any node."""
    return next((found for home in _HOMES if (found := _at(home, name)) is not None), None)


def _at(home: str, name: str) -> Any:
    if name not in _public(home):
        return None
    found = getattr(import_module(f"pyvirt.{home}"), name)
    return found if _is_description(found) and found not in FAMILIES else None


def _public(home: str) -> list[str]:
    module = import_module(f"pyvirt.{home}")
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    own = module.__name__
    return [n for n, v in vars(module).items() if getattr(v, "__module__", "").startswith(own)]


def _is_description(found: Any) -> bool:
    return isinstance(found, type) and attrs.has(found)


def _belongs(found: Any, family: Any) -> bool:
    if family is Part:  # a protocol with properties knows no subclasses
        return all(hasattr(found, name) for name in ("id", "prefix", "slot", "options"))
    return issubclass(found, family)
