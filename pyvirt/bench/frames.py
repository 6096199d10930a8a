"""Results as data frames of polars and pandas, which are loaded when asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pyvirt.virtio.tables import package

if TYPE_CHECKING:
    from pyvirt.bench.results import Results

_TEXTS = ("point", "device", "workload", "metric", "unit", "accelerator", "options")
_COUNTS = ("round", "order")


def polars(results: Results) -> Any:
    """A polars data frame with a row for each figure."""
    pl = package("polars")
    types = {
        **dict.fromkeys(_TEXTS, pl.String),
        **dict.fromkeys(_COUNTS, pl.Int64),
        "value": pl.Float64,
        "busy": pl.Boolean,
    }
    columns = _columns(results)
    return pl.DataFrame(
        {name: pl.Series(name, values, types[name]) for name, values in columns.items()}
    )


def pandas(results: Results) -> Any:
    """A pandas data frame with a row for each figure."""
    pd = package("pandas")
    types = {
        **dict.fromkeys(_TEXTS, "string"),
        **dict.fromkeys(_COUNTS, "int64"),
        "value": "float64",
        "busy": "bool",
    }
    columns = _columns(results)
    return pd.DataFrame(
        {name: pd.Series(values, dtype=types[name]) for name, values in columns.items()}
    )


def _columns(results: Results) -> dict[str, list[Any]]:
    """A column for each field of a row, and the accelerator that all share."""
    rows = results.rows
    names = ("point", "device", "workload", "round", "order", "metric", "unit", "busy")
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in names}
    columns["value"] = [float(row.value) for row in rows]
    columns["accelerator"] = [results.meta.get("accelerator")] * len(rows)
    columns["options"] = [json.dumps(dict(row.options), default=str) for row in rows]
    return columns
