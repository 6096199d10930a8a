"""The firmware that this host has for QEMU, read from its descriptors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from pyvirt.machine.firmware import Descriptor, UefiFiles, descriptor
from pyvirt.machine.firmware import find as choose

#: Where descriptors are, the first winning by file name (docs/interop/firmware.json).
FOLDERS = ("/etc/qemu/firmware", "/usr/local/share/qemu/firmware", "/usr/share/qemu/firmware")


def find(files: UefiFiles) -> Descriptor:
    """The UEFI firmware of this host that fits. Raises `UnsupportedError`."""
    return choose(descriptors(), files)


def descriptors() -> Iterator[Descriptor]:
    """All x86 flash firmwares of this host, in the order of their file names."""
    seen: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in sorted(Path(folder).glob("*.json")):
            seen.setdefault(path.name, path)
    for _name, path in sorted(seen.items()):
        # An empty file of the administrator's hides one of the distribution's.
        text = path.read_text(encoding="utf-8")
        found = descriptor(json.loads(text)) if text.strip() else None
        if found is not None:
            yield found
