"""A key or a password for QEMU's block layer, never in clear on a command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs import field

from pyvirt.errors import SpecError
from pyvirt.fields import frozen, to_path
from pyvirt.qemu.need import Need, TemporaryFile
from pyvirt.qemu.option import Late, Option


@frozen
class Secret:
    """A passphrase: its text, or the file that holds it (and nothing else: no newline).

    QEMU reads text from a temporary file of the VM; neither a command line nor a repr
    shows it. QEMU wants UTF-8.
    """

    text: str | None = field(default=None, repr=False)
    file: Path | None = field(default=None, converter=to_path)

    def __attrs_post_init__(self) -> None:
        if (self.text is None) == (self.file is None):
            raise SpecError("text", "or file must be given, and only one", self.file)

    def options(self, id: str) -> Iterator[Option | Need]:
        """The ``secret`` object `id`."""
        if self.text is not None:
            yield TemporaryFile(id, content=self.text.encode())
        file = Late(id) if self.text is not None else str(self.file)
        yield Option("object", {"qom-type": "secret", "id": id, "file": file})


def _convert(value: Any, field: attrs.Attribute[Any]) -> Secret | None:
    if value is None or isinstance(value, Secret):
        return value
    if isinstance(value, os.PathLike):
        return Secret(file=Path(value))
    if isinstance(value, str) and value and _is_utf8(value):
        return Secret(value)
    # The value is a secret even when it is wrong: an error must not show it.
    raise SpecError(field.name, "must be a passphrase or the Path of its file", type(value))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


if TYPE_CHECKING:  # mypy knows converters only as plain functions.

    def to_secret(value: str | os.PathLike[str] | Secret | None) -> Secret | None:
        """Converter of a passphrase: text is the passphrase itself, a Path its file."""

else:
    to_secret = attrs.Converter(_convert, takes_field=True)
