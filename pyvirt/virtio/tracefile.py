"""A trace in a file: a head, what is known of it as JSON, records, payload.

    offset type
     0     8 bytes  "pvtrace" and NUL
     8     u32      version, 1
    12     u32      size of the JSON, with spaces to a multiple of 8
    16     u64      size of the records
    24     u64      size of the payload

All little-endian; the three follow each other. The records are as in `pyvirt.virtio.records`.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import attrs

from pyvirt.errors import SpecError, TraceError
from pyvirt.virtio.records import Lost, TracedQueue
from pyvirt.virtio.trace import Trace

_HEAD = struct.Struct("<8sIIQQ")
_MAGIC, _VERSION = b"pvtrace\0", 1
_TIMES = ("started", "ended", "realtime")


def save(trace: Trace, file: str | os.PathLike[str]) -> None:
    """Write a trace."""
    facts = {
        "queues": [attrs.asdict(queue) for queue in trace.queues],
        "lost": attrs.asdict(trace.lost),
        **{name: getattr(trace, name) for name in _TIMES},
    }
    text = json.dumps(facts).encode()
    text = text.ljust(-(-len(text) // 8) * 8)
    sizes = len(text), len(trace.records), len(trace.payload)
    with open(file, "wb") as out:
        out.write(_HEAD.pack(_MAGIC, _VERSION, *sizes))
        out.writelines((text, trace.records, trace.payload))


def load(file: str | os.PathLike[str]) -> Trace:
    """Read a trace; raises `TraceError`."""
    return read(Path(file).read_bytes(), os.fspath(file))


def read(data: bytes, name: str) -> Trace:
    """The trace in the bytes of a file."""
    if not data.startswith(_MAGIC) or len(data) < _HEAD.size:
        raise TraceError(name, "is no trace of pyvirt", 0)
    _, version, *sizes = _HEAD.unpack_from(data)
    if version != _VERSION:
        raise TraceError(name, f"has version {version}, known is {_VERSION}", 8)
    ends = [_HEAD.size + sum(sizes[: count + 1]) for count in range(3)]
    if ends[-1] != len(data):
        raise TraceError(name, f"has {len(data)} bytes instead of {ends[-1]}", len(data))
    view = memoryview(data)
    try:
        facts = _facts(json.loads(data[_HEAD.size : ends[0]]))
        return Trace(view[ends[0] : ends[1]], view[ends[1] : ends[2]], **facts)
    except SpecError as error:
        raise TraceError(name, f"is damaged: {error}", ends[0]) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TraceError(name, "does not say what was traced", _HEAD.size) from error


def _facts(told: Any) -> dict[str, Any]:
    times = {name: told[name] for name in _TIMES}
    queues = tuple(TracedQueue(**one) for one in told["queues"])
    lost = Lost(**told["lost"])
    numbers = [*times.values(), *attrs.astuple(lost)]
    for queue in queues:
        *texts, index, features, size, count = attrs.astuple(queue)
        numbers += [index, features, size, count]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(texts)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise TypeError(numbers)
    return {"queues": queues, "lost": lost, **times}
