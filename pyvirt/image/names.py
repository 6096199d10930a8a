"""File names inside images, read as QEMU reads them.

An image names another one by a path, by ``protocol:rest`` or by ``json:{...}``; block.c of QEMU
(`path_has_protocol`, `path_combine`, `parse_json_filename`) says which of them it is.
"""

from __future__ import annotations

import json
import os.path
import re
from typing import Any

from attrs import frozen

from pyvirt.image.layer import Reference

#: A colon before the first slash.
_PROTOCOL = re.compile(r"[^:/]*:")
#: Options that make no difference to what is read.
_HARMLESS = {"cache", "discard", "detect-zeroes", "node-name", "read-only", "auto-read-only"}
_HARMLESS |= {"locking", "aio", "force-share", "x-check-cache-dropped", "drop-cache"}


class NoFile(ValueError):
    """A name that stands for no file of this host; the text says what for."""


@frozen
class Named:
    """The file that a name stands for."""

    path: str
    #: The format that the name itself demands ("json:" can).
    format: str | None = None


def named(reference: Reference, image: str | None) -> Named:
    """The file that `reference` means in the image at path `image` (None: it has none).

    Raises `NoFile`.
    """
    name = reference.name
    if not name or "\0" in name:
        raise NoFile("an empty name, or one with a zero byte, is no path")
    if name.startswith("json:"):
        return _from_json(name.removeprefix("json:"))
    if protocol := _PROTOCOL.match(name):
        return Named(absolute(_from_protocol(protocol[0], name)))
    if os.path.isabs(name):
        return Named(name)
    if reference.kind == "data-file":  # QEMU looks for these in its working directory.
        return Named(absolute(name))
    if image is None:
        raise NoFile("the name is relative, and the image was not opened by a path")
    return Named(os.path.join(os.path.dirname(absolute(image)), name))


def absolute(path: str) -> str:
    """`path` from the root on, with its ".." left: behind a symlink they mean something else."""
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def _from_protocol(protocol: str, name: str) -> str:
    if protocol != "file:":
        raise NoFile(f"{protocol} is a protocol, and only files of this host are opened")
    return name.removeprefix("file:")


def _from_json(text: str) -> Named:
    try:
        options = json.loads(text)
    except (ValueError, RecursionError):
        raise NoFile("what follows json: is not JSON") from None
    if not isinstance(options, dict):
        raise NoFile("what follows json: is not an object")
    options = _nested(options)
    file = options.get("file")
    if not isinstance(file, dict):
        return Named(_file(options), "raw")
    _only(options, {"driver", "file"})
    format = options.get("driver")
    if format is not None and not isinstance(format, str):
        raise NoFile("json: names a driver that is no text")
    return Named(_file(file), format)


def _nested(options: dict[str, Any]) -> dict[str, Any]:
    """`{"file.filename": x}` written as `{"file": {"filename": x}}`: QEMU takes both."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        if key.startswith("file."):
            below = found.setdefault("file", {})
            if not isinstance(below, dict):
                raise NoFile("json: tells the same option twice")
            below[key.removeprefix("file.")] = value
        elif key == "file" and "file" in found:
            raise NoFile("json: tells the same option twice")
        else:
            found[key] = dict(value) if isinstance(value, dict) else value
    return found


def _file(options: dict[str, Any]) -> str:
    """The path in the options of QEMU's driver "file"."""
    driver, path = options.get("driver", "file"), options.get("filename")
    if driver not in ("file", "host_device") or not isinstance(path, str):
        raise NoFile(f"json: names a {driver!r} node, and only files of this host are opened")
    _only(options, {"driver", "filename"})
    if not path or "\0" in path:
        raise NoFile("an empty name, or one with a zero byte, is no path")
    return absolute(path)


def _only(options: dict[str, Any], known: set[str]) -> None:
    for key in options:
        if key.split(".")[0] not in known | _HARMLESS:
            raise NoFile(f"json: has the option {key!r}, which is not followed")
