"""Named blobs for firmware and guest: ``/sys/firmware/qemu_fw_cfg/by_name`` in Linux."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need, TemporaryFile
from pyvirt.qemu.option import Late, Option
from pyvirt.qemu.part import At, Slot


@frozen
class FwCfg:
    """The item `name` (users' own begin with ``opt/``), with one of three contents.

    `content` is bytes, `file` is read when QEMU starts, `string` is text without its NUL.
    """

    name: str = field(validator=fields.text)
    string: str | None = field(default=None, validator=fields.optional(fields.text))
    content: bytes | None = field(
        default=None, validator=fields.optional(fields.kind(bytes)), kw_only=True
    )
    file: Path | None = field(default=None, converter=fields.to_path, kw_only=True)
    id: str | None = field(default=None, validator=fields.optional(fields.name), kw_only=True)

    prefix = "fwcfg"
    slot = Slot("", unpluggable=False)

    def __attrs_post_init__(self) -> None:
        if not 1 <= len(self.name.encode()) <= 55:
            raise SpecError("name", "must have 1 to 55 bytes", self.name)
        given = [self.string, self.content, self.file]
        if sum(value is not None for value in given) != 1:
            raise SpecError("string", "or content or file must be given, and only one", given)
        if self.string == "" or self.content == b"":
            raise SpecError("string", "must not be empty: QEMU refuses an empty item", "")

    def options(self, at: At) -> Iterator[Option | Need]:
        """``-fw_cfg``."""
        if self.content is not None:
            yield TemporaryFile(f"{at.name}-content", content=self.content)
        yield Option("fw_cfg", {"name": self.name, **self._source(at)})

    def _source(self, at: At) -> dict[str, Any]:
        if self.string is not None:
            return {"string": self.string}
        return {"file": Late(f"{at.name}-content") if self.file is None else str(self.file)}
