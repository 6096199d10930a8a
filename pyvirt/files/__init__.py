"""Descriptions as files, TOML or JSON: read into a `VM`, and written from one.

A table is a constructor call, and its keys are the fields::

    memory = "1G"
    cpus = { count = 2, model = "max" }

    [[disks]]
    file = "data.qcow2"
    bus = "scsi"

    [[nics]]
    model = "e1000"
    backend = { type = "User", restrict = true }

    [[devices]]
    type = "Rng"

`type` names the class where a field takes several; in `disks` it is Disk and in `serials`
Serial unless said. A field that is itself called type is written ``type_`` beside it. Where
text or bytes may stand, ``{ path = "…" }`` is a path and ``{ base64 = "…" }`` bytes. In
QEMU's own properties a description is ``{ pyvirt = "File", filename = "…" }``, and
``{ pyvirt = "None" }`` is Python's None everywhere. Relative paths are those of the process
that uses them, as on QEMU's command line.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyvirt.errors import SpecError
from pyvirt.files import toml
from pyvirt.files.read import build
from pyvirt.files.write import holds_secrets, table
from pyvirt.vm import VM

FORMS = ("toml", "json")


def load(path: str | os.PathLike[str]) -> VM:
    """The VM that the file describes; its suffix tells the form.

    Raises `SpecError` that names the place in the file (``disks[0].bus``).
    """
    return described(parsed(path))


def parsed(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The mapping in a file, not yet a VM. Raises `SpecError` naming the file."""
    file = Path(path)
    form = _form(file)
    try:
        return _parsed(file.read_text("utf-8"), form)
    except UnicodeDecodeError as error:
        raise SpecError(str(file), f"must be UTF-8 ({error.reason})", error.start) from None
    except SpecError as error:
        raise SpecError(str(file), error.reason, error.value) from None


def loads(text: str, form: str = "toml") -> VM:
    """The VM that `text` describes, TOML or JSON."""
    return described(_parsed(text, form))


def described(mapping: Mapping[str, Any]) -> VM:
    """The VM that a mapping describes."""
    made = build(VM, mapping, "")
    assert isinstance(made, VM)
    return made


def save(vm: VM, path: str | os.PathLike[str]) -> Path:
    """Write the description to a file, whole or not at all; its suffix tells the form.

    A file that holds passwords is readable to its owner only.
    """
    file = Path(path)
    text = dumps(vm, _form(file))
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    mode = 0o600 if holds_secrets(vm) else 0o666
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(handle, "w", encoding="utf-8") as out:
            out.write(text)
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return file


def dumps(vm: VM, form: str = "toml") -> str:
    """The description as text: `loads` gives an equal VM."""
    given = table(vm)
    if form == "json":
        return json.dumps(given, indent=2) + "\n"
    return toml.text(given)


def _form(file: Path) -> str:
    form = file.suffix.removeprefix(".").lower()
    if form not in FORMS:
        raise SpecError("path", "must end in .toml or .json", str(file))
    return form


def _parsed(text: str, form: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text) if form == "json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(form, f"cannot be read ({error})", text[:40]) from None
    if not isinstance(found, dict):
        raise SpecError(form, "must be an object", found)
    return found
