"""Options to words of a command line, or to QMP commands: the only place that knows either.

`-device -object -blockdev -netdev -audiodev -display` take JSON, which needs no quoting
of commas. All others take ``key=value,…`` with commas doubled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pyvirt.qemu.chardev import chardev
from pyvirt.qemu.option import JsonNull, Late, Option
from pyvirt.qmp.flow import Command

JSON_KINDS = frozenset({"device", "object", "blockdev", "netdev", "audiodev", "display"})

# The property that the option's first word sets; it is written first and without its name,
# unless its value has a "=", before which QEMU would look for one.
IMPLIED = {
    "machine": "type", "cpu": "model", "smp": "cpus", "m": "size", "chardev": "backend",
    "accel": "accel", "numa": "type", "tpmdev": "type", "display": "type", "fsdev": "fsdriver",
    "mon": "chardev", "watchdog-action": "action", "fw_cfg": "name", "vnc": "vnc",
}  # fmt: skip

QMP_COMMANDS = {
    "device": "device_add",
    "object": "object-add",
    "blockdev": "blockdev-add",
    "netdev": "netdev_add",
    "chardev": "chardev-add",
    "action": "set-action",
}

#: The command that removes what an option made, and the name of its argument.
REMOVALS = {
    "device": ("device_del", "id"),
    "object": ("object-del", "id"),
    "blockdev": ("blockdev-del", "node-name"),
    "netdev": ("netdev_del", "id"),
    "chardev": ("chardev-remove", "id"),
}


def removal(option: Option) -> Command:
    """The QMP command that undoes `option` in a running QEMU."""
    name, key = REMOVALS[option.kind]
    return Command(name, {key: option.id})


def argv(options: Iterable[Option], supplied: Mapping[str, str] | None = None) -> list[str]:
    """The words for QEMU's command line, without the program's name.

    `supplied` maps the names of needs to their values; without it each stands as ``<name>``,
    which is how a command line looks before anything is started.
    """
    words: list[str] = []
    for option in options:
        words.append(f"-{option.kind}")
        word = _word(option, supplied)
        if word is not None:
            words.append(word)
    return words


def commands(options: Iterable[Option], supplied: Mapping[str, str]) -> Iterator[Command]:
    """The QMP commands that do to a running QEMU what the options do at its start.

    Raises `ValueError` for an option that QEMU takes only at start.
    """
    for option in options:
        name = QMP_COMMANDS.get(option.kind)
        if name is None or not isinstance(option.properties, Mapping):
            raise ValueError(f"-{option.kind} can only be given when QEMU starts")
        properties = resolve(option.properties, supplied)
        yield Command(name, chardev(properties) if name == "chardev-add" else properties)


def resolve(value: Any, supplied: Mapping[str, str] | None) -> Any:
    """`value` with each `Late` in it replaced by what was supplied."""
    if isinstance(value, JsonNull):
        return None
    if isinstance(value, Late):
        return value.form.format(f"<{value.need}>" if supplied is None else supplied[value.need])
    if isinstance(value, Mapping):
        return {
            key: resolve(item, supplied) for key, item in value.items() if _given(item, supplied)
        }
    if isinstance(value, list | tuple):
        return [resolve(item, supplied) for item in value]
    return value


def _given(value: Any, supplied: Mapping[str, str] | None) -> bool:
    """Whether a property is there at all: an optional need may have had nothing to supply."""
    if isinstance(value, Late) and supplied is not None:
        return bool(supplied[value.need])
    return value is not None


def _word(option: Option, supplied: Mapping[str, str] | None) -> str | None:
    properties = resolve(option.properties, supplied)
    if properties is None or isinstance(properties, str):
        return properties
    if option.kind in JSON_KINDS:
        return json.dumps(properties, separators=(",", ":"), ensure_ascii=False)
    return ",".join(keyval(properties, IMPLIED.get(option.kind, "")))


def keyval(properties: Mapping[str, Any], implied: str = "", prefix: str = "") -> Iterator[str]:
    """``key=value`` items; nested mappings as ``a.b=…``, lists as ``a.0=…``."""
    for key, value in properties.items():
        if isinstance(value, Mapping):
            yield from keyval(value, prefix=f"{prefix}{key}.")
        elif isinstance(value, list):
            numbered = {str(number): item for number, item in enumerate(value)}
            yield from keyval(numbered, prefix=f"{prefix}{key}.")
        elif key == implied and not prefix and "=" not in str(value):
            yield _scalar(value)
        else:
            yield f"{prefix}{key}={_scalar(value)}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace(",", ",,")
