"""Which field of a description made which option: for people, and for tests."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from pyvirt import html
from pyvirt.qemu.option import Option
from pyvirt.qemu.render import argv


@frozen
class Reason:
    """The `words` of one option and the field that made them ("disks[0].cache")."""

    field: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.field}  {shlex.join(self.words)}"


class Explanation(Sequence[Reason]):
    """All options of a VM in order, each with the field that made it; prints as a table."""

    def __init__(self, options: Sequence[Option], supplied: Mapping[str, str] | None = None):
        self._reasons = tuple(
            Reason(option.source, tuple(argv([option], supplied))) for option in options
        )

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return self._reasons[index]

    def __len__(self) -> int:
        return len(self._reasons)

    def of(self, field: str) -> tuple[Reason, ...]:
        """The options that `field`, or a field inside it, made."""
        return tuple(
            reason
            for reason in self._reasons
            if reason.field == field or reason.field.startswith((f"{field}.", f"{field}["))
        )

    def _lines(self) -> Iterator[str]:
        width = max((len(reason.field) for reason in self._reasons), default=0)
        for reason in self._reasons:
            yield f"{reason.field:{width}}  {shlex.join(reason.words)}"

    def __str__(self) -> str:
        return "\n".join(self._lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = ((reason.field, shlex.join(reason.words)) for reason in self._reasons)
        return html.table(("field", "option"), rows)
