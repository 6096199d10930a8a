"""What a benchmark measured, as tidy rows that a file keeps whole."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import msgspec
from attrs import field

from pyvirt import fields
from pyvirt.bench.compare import Comparison, compare
from pyvirt.bench.ratios import Ratio, Spread, ratios, spreads
from pyvirt.errors import ResultsError, SpecError
from pyvirt.fields import frozen

#: The version of the file format, raised when an older pyvirt would misread a file.
FORMAT = 1


def _finite(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SpecError(attribute.name, "must be a finite number", value)


_count = fields.between(0, 2**31 - 1)


@frozen
class Row:
    """One figure of one point in one round.

    `point` is the point's label, unique in its matrix; `order` its turn within the round;
    `unit` is B/s, 1/s, s, B or 1. `busy` marks a figure taken while something else used the
    host, `options` are all options of the point.
    """

    point: str = field(validator=fields.text)
    device: str = field(validator=fields.text)
    workload: str = field(validator=fields.text)
    round: int = field(validator=_count)
    order: int = field(validator=_count)
    metric: str = field(validator=fields.text)
    value: float = field(validator=_finite)
    unit: str = field(validator=fields.text)
    busy: bool = field(default=False, validator=fields.kind(bool))
    options: Mapping[str, Any] = field(factory=dict, validator=fields.kind(Mapping), hash=False)


@frozen
class Failure:
    """A run of a point that gave no figures: why, in one sentence, and the last words of it."""

    point: str = field(validator=fields.text)
    round: int = field(validator=_count)
    reason: str = field(validator=fields.text)
    words: str = field(default="", validator=fields.text)


def _to_pairs(value: Any) -> tuple[tuple[str, str], ...]:
    return tuple((str(point), str(baseline)) for point, baseline in value)


@frozen(repr=False)
class Results:
    """All that one or more runs measured.

    `pairs` name each point with the baseline it is compared with. `meta` tells where the
    figures come from: host, QEMU, accelerator, guest, command lines, versions and times.
    Printed, they are a table; in a notebook, a report.
    """

    rows: tuple[Row, ...] = field(default=(), converter=fields.to_tuple)
    failures: tuple[Failure, ...] = field(default=(), converter=fields.to_tuple)
    meta: Mapping[str, Any] = field(factory=dict, validator=fields.kind(Mapping), hash=False)
    pairs: tuple[tuple[str, str], ...] = field(default=(), converter=_to_pairs)

    def __repr__(self) -> str:
        points = len({row.point for row in self.rows})
        rounds = len({row.round for row in self.rows})
        accelerator = self.meta.get("accelerator", "unknown")
        return (
            f"<Results: {points} points, {rounds} rounds, {len(self.rows)} rows, "
            f"{len(self.failures)} failures, accelerator {accelerator}>"
        )

    def __str__(self) -> str:
        return self.table()

    def __add__(self, other: Results) -> Results:
        """Both, with what this one tells of where they come from winning.

        Rounds of a point that both have are counted on. `SpecError` when the accelerator or
        the processor differs: one table would mix what must not be compared.
        """
        for name, ours, theirs in _sources(self.meta, other.meta):
            raise SpecError("other", f"must have the same {name}, {ours}", theirs)
        first = _later(self, other)
        return Results(
            self.rows + tuple(attrs.evolve(row, round=row.round + first) for row in other.rows),
            self.failures
            + tuple(attrs.evolve(one, round=one.round + first) for one in other.failures),
            {**other.meta, **self.meta},
            tuple(dict.fromkeys((*self.pairs, *other.pairs))),
        )

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of all metrics in the rows."""
        return tuple(dict.fromkeys(row.metric for row in self.rows))

    def ratios(self, metric: str | None = "throughput") -> tuple[Ratio, ...]:
        """Of each pair the ratio by this metric; by None, by the first that it has."""
        return ratios(self, metric)

    def spreads(self, metric: str | None = None) -> tuple[Spread, ...]:
        """Medians and quartiles of each point, by this metric or by all."""
        return tuple(spreads(self.rows, metric).values())

    def compare(self, other: Results) -> Comparison:
        """What is different in `other`, which was measured later or elsewhere."""
        return compare(self, other)

    def table(self, metric: str | None = None) -> str:
        """Figures, ratios and costs as text; by default of each workload its first metric."""
        from pyvirt.bench.text import table

        return table(self, metric)

    def svg(self, metric: str | None = None) -> str:
        """The same as a picture."""
        from pyvirt.bench.plot import svg

        return svg(self, metric)

    def png(self, path: str | os.PathLike[str], metric: str | None = None) -> Path:
        """Write the picture to a PNG file; needs the package cairosvg."""
        from pyvirt.bench.plot import png

        return replace(Path(path), png(self, metric))

    def html(self) -> str:
        """A report in one file: picture, tables, failures, and how it was measured."""
        from pyvirt.bench.report import page

        return page(self)

    def _repr_html_(self) -> str:
        from pyvirt.bench.report import body

        return body(self)

    def to_polars(self) -> Any:
        """A polars data frame with a row for each figure; `options` are JSON."""
        from pyvirt.bench.frames import polars

        return polars(self)

    def to_pandas(self) -> Any:
        """A pandas data frame with a row for each figure; `options` are JSON."""
        from pyvirt.bench.frames import pandas

        return pandas(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write them to a JSON file, which appears whole or stays as it was."""
        whole = {"format": FORMAT, **attrs.asdict(self, recurse=False)}
        return replace(Path(path), msgspec.json.format(msgspec.json.encode(whole), indent=1))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Results:
        """The results in a file; `ResultsError` when it holds none that this pyvirt can read."""
        name = os.fspath(path)
        return _parsed(Path(path).read_bytes(), name)


def _sources(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """What both tell differently of where figures come from that makes them incomparable."""
    for name, one, other in (
        ("accelerator", ours.get("accelerator"), theirs.get("accelerator")),
        ("processor", _processor(ours), _processor(theirs)),
    ):
        if one is not None and other is not None and one != other:
            yield name, one, other


def _processor(meta: Mapping[str, Any]) -> object:
    host = meta.get("host")
    return host.get("cpu") if isinstance(host, Mapping) else None


def _later(one: Results, other: Results) -> int:
    """By how much the rounds of `other` are counted on, not to be taken for those of `one`."""
    taken = {(row.point, row.round) for row in one.rows}
    if not any((row.point, row.round) in taken for row in other.rows):
        return 0
    return 1 + max(round for _, round in taken)


def replace(path: Path, data: bytes) -> Path:
    """Put `data` into the place of the file `path`, at once or not at all."""
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(draft)
        raise
    return path


def _parsed(data: bytes, name: str) -> Results:
    try:
        whole = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultsError(name, f"it is cut or damaged ({error})") from error
    if not isinstance(whole, dict) or not isinstance(whole.get("format"), int):
        raise ResultsError(name, "it is another kind of file")
    if whole["format"] > FORMAT or whole["format"] < 1:
        raise ResultsError(name, f"it is of format {whole['format']}, this pyvirt reads {FORMAT}")
    try:
        return msgspec.convert({k: v for k, v in whole.items() if k != "format"}, Results)
    except (msgspec.ValidationError, SpecError) as error:
        raise ResultsError(name, f"it is damaged ({error})") from error
