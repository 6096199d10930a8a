"""Do values fit the properties of a device, as this QEMU lists them?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pyvirt.errors import SpecError
from pyvirt.qemu.option import Late

if TYPE_CHECKING:
    from pyvirt.qemu.capabilities import PropertyInfo

#: What every device takes, and ``device-list-properties`` does not list.
ALWAYS = frozenset({"driver", "id", "bus"})


def check_properties(properties: Mapping[str, Any], known: Mapping[str, PropertyInfo]) -> None:
    """Raise `SpecError` for a property that is not `known`, or whose value has the wrong type."""
    for name, value in properties.items():
        if name in ALWAYS:
            continue
        if name not in known:
            reason = f"is not a property of the device{_meant(name, known)}"
            raise SpecError(f"properties.{name}", reason, value)
        if value is not None and not isinstance(value, Late):
            _check_value(f"properties.{name}", value, known[name])


def _meant(name: str, known: Iterable[str]) -> str:
    """What may have been meant: most often an underline for a dash, or the other way round."""
    spelled = {_plain(word): word for word in known}
    near = get_close_matches(_plain(name), spelled, n=1)
    return f"; did you mean {spelled[near[0]]!r}?" if near else ""


def _plain(name: str) -> str:
    return name.replace("_", "-").lower()


_INTEGER = re.compile(r"(u?)int(\d*)")


def _check_value(field: str, value: Any, info: PropertyInfo) -> None:
    if info.type == "bool":
        _must(isinstance(value, bool), field, "must be True or False", value)
    elif integer := _INTEGER.fullmatch(info.type):
        _check_integer(field, value, info, integer)
    elif info.type == "size":
        reason = "must be a size in bytes, as a number"
        _must(_is_integer(value) and value >= 0, field, reason, value)
    elif info.type.startswith("child<") or info.type == "guest statistics":
        _must(False, field, "is a part of the device and cannot be set", value)
    elif words := enumeration(info):
        _must(value in words, field, f"must be one of {', '.join(words)}", value)
    elif info.type in ("str", "string") or info.type.startswith("link<"):
        _must(isinstance(value, str), field, "must be text", value)


def _check_integer(field: str, value: Any, info: PropertyInfo, kind: re.Match[str]) -> None:
    if _is_address(info) and isinstance(value, str):
        return
    _must(_is_integer(value), field, "must be an integer", value)
    bits = int(kind[2] or 64)
    low, high = (0, 2**bits - 1) if kind[1] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    _must(low <= value <= high, field, f"must be from {low} to {high}", value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_address(info: PropertyInfo) -> bool:
    """A PCI slot and function, which QEMU reads from text although it says int32."""
    return (info.description or "").startswith("Slot and optional function")


def enumeration(info: PropertyInfo) -> tuple[str, ...]:
    """The words that an enumeration takes, which QEMU tells only in its description."""
    last = (info.description or "").rpartition(" ")[2]
    return tuple(last.split("/")) if info.type[:1].isupper() and "/" in last else ()


def _must(holds: bool, field: str, reason: str, value: Any) -> None:
    if not holds:
        raise SpecError(field, reason, value)
