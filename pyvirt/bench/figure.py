"""One figure that a run of a point gave."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pyvirt.errors import SpecError
from pyvirt.fields import frozen


@frozen
class Figure:
    """A metric, its value, and its unit: B/s, 1/s, s, B or 1."""

    metric: str
    value: float
    unit: str


def known(field: str, name: object, names: Iterable[str]) -> str:
    """`name` when it is one of `names`; else `SpecError` with those, the nearest one named."""
    table = sorted(names)
    if isinstance(name, str) and name in table:
        return name
    near = difflib.get_close_matches(str(name), table, 1, 0.4)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise SpecError(field, f"must be one of {', '.join(table)}{hint}", name)
