"""A password for QEMU that no command line shows."""

from __future__ import annotations

from collections.abc import Iterator

from pyvirt.qemu.need import Need, TemporaryFile
from pyvirt.qemu.option import Late, Option


def secret(id: str, text: str) -> Iterator[Option | Need]:
    """The object `id` that holds `text`, read from a temporary file."""
    yield TemporaryFile(id, content=text.encode())
    yield Option("object", {"qom-type": "secret", "id": id, "file": Late(id)})
