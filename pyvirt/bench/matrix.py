"""What is measured and compared: points, pairs of them, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.bench.figure import known
from pyvirt.bench.fio import Fio
from pyvirt.bench.iperf import Iperf, RoundTrip
from pyvirt.bench.place import Place
from pyvirt.errors import SpecError
from pyvirt.fields import frozen


class Point(Protocol):
    """One device with one workload: a `DiskPoint` or a `NetPoint`."""

    @property
    def name(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def place(self) -> Place: ...

    @property
    def workload(self) -> Fio | Iperf | RoundTrip: ...

    @property
    def options(self) -> Mapping[str, Any]: ...


def options(point: Any) -> dict[str, Any]:
    """Every option of a point as plain values, for the rows of its results."""
    return dict(
        attrs.asdict(point, value_serializer=lambda _self, _field, value: _plain(value))
    )


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | list | dict | None) else str(value)


def _to_pairs(value: Any) -> tuple[tuple[str, str], ...]:
    return tuple((str(point), str(baseline)) for point, baseline in value)


@frozen
class Matrix:
    """The `points` to measure in `rounds` rounds, and the `pairs` (point, baseline) to compare.

    `warm_up` rounds come first and do not count. A run is given up after `limit` seconds
    more than its workload takes, and repeated at most `repeats` times when the host was
    busy. With `counts`, accesses, notifications and interrupts are counted beside.

    Matrices add up. Raises `SpecError` when two points have one name, or a pair names none.
    """

    points: tuple[Any, ...] = field(converter=fields.to_tuple)
    pairs: tuple[tuple[str, str], ...] = field(default=(), converter=_to_pairs)
    rounds: int = field(default=5, validator=fields.between(1, 10000), kw_only=True)
    warm_up: int = field(default=1, validator=fields.between(0, 100), kw_only=True)
    repeats: int = field(default=1, validator=fields.between(0, 10), kw_only=True)
    limit: float = field(default=60.0, validator=fields.positive, kw_only=True)
    counts: bool = field(default=True, validator=fields.kind(bool), kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.points:
            raise SpecError("points", "must not be empty", self.points)
        for name, number in Counter(point.name for point in self.points).items():
            if number > 1:
                raise SpecError("points", "must have different names: give one a label", name)
        names = [point.name for point in self.points]
        for number, pair in enumerate(self.pairs):
            for name in pair:
                known(f"pairs[{number}]", name, names)

    def __add__(self, other: Matrix) -> Matrix:
        """The points of both, as this one is run."""
        return attrs.evolve(
            self, points=self.points + other.points, pairs=self.pairs + other.pairs
        )

    def order(self, round: int) -> Iterator[tuple[int, Any]]:
        """The points in the order of round number `round`, each with its turn.

        Each round begins one point later than the one before; every other runs backwards,
        so that no point always follows the same one.
        """
        count = len(self.points)
        start = round // 2 % count
        turned = [*self.points[start:], *self.points[:start]]
        yield from enumerate(reversed(turned) if round % 2 else turned)

    @property
    def seconds(self) -> float:
        """Roughly how long all rounds take, without the boots."""
        each: float = sum(point.workload.seconds + 2.0 for point in self.points)
        return each * (self.rounds + self.warm_up)
