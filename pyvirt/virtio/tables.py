"""Traces as data frames of polars and pandas, which are loaded when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyvirt.errors import UnsupportedError

if TYPE_CHECKING:
    from pyvirt.virtio.trace import Trace

_TEXTS = ("device", "kind", "queue", "operation", "status", "error")
_NUMBERS = ("offset", "length", "depth", "head", "readable", "writable", "written", "flags")


def package(name: str) -> Any:
    """An optional package; raises `UnsupportedError` naming it where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UnsupportedError(name, "this Python", f"pip install {name}") from error


def polars(trace: Trace) -> Any:
    """A polars data frame; `made` and `done` are times of day in UTC."""
    pl = package("polars")
    time = pl.Datetime("ns", "UTC")
    types = {
        **dict.fromkeys(_TEXTS, pl.String),
        **dict.fromkeys(_NUMBERS, pl.UInt64),
        "made": time,
        "done": time,
        "latency": pl.Float64,
    }
    columns = _columns(trace)
    return pl.DataFrame(
        {name: pl.Series(name, values, types[name]) for name, values in columns.items()}
    )


def pandas(trace: Trace) -> Any:
    """A pandas data frame; `made` and `done` are times of day in UTC."""
    pd = package("pandas")
    types = {
        **dict.fromkeys(_TEXTS, "string"),
        **dict.fromkeys(_NUMBERS, "UInt64"),
        "latency": "float64",
    }
    return pd.DataFrame(
        {
            name: pd.Series(values, dtype=types[name])
            if name in types
            else pd.to_datetime(pd.Series(values, dtype="Int64"), unit="ns", utc=True)
            for name, values in _columns(trace).items()
        }
    )


def _columns(trace: Trace) -> dict[str, list[Any]]:
    """What the frames hold: decoded first, then what stands in the records."""
    requests = list(trace)
    columns: dict[str, list[Any]] = {
        "device": [one.device for one in requests],
        "kind": [one.kind for one in requests],
        "queue": [one.queue.name for one in requests],
        "operation": [one.operation for one in requests],
        "offset": [_fitting(one.offset) for one in requests],
        "length": [_fitting(one.length) for one in requests],
        "status": [one.status for one in requests],
        "made": [trace.realtime + made for made in trace.columns["made"]],
        "done": [trace.realtime + done if done else None for done in trace.columns["done"]],
        "latency": [one.latency for one in requests],
    }
    for name in ("depth", "head", "readable", "writable", "written", "flags"):
        columns[name] = trace.columns[name].tolist()
    return {**columns, "error": [one.error for one in requests]}


def _fitting(value: int | None) -> int | None:
    """A number, unless a guest named a place that no 64 bits hold."""
    return value if value is not None and value < 1 << 64 else None
