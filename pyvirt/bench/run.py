"""Run a matrix in real guests."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Self

from attrs import asdict, frozen

from pyvirt.bench import host
from pyvirt.bench.disk import DiskPoint
from pyvirt.bench.ends import HostEnd, PeerEnd, TapEnd
from pyvirt.bench.figure import Figure
from pyvirt.bench.guest import GUEST, BenchGuest
from pyvirt.bench.images import Images
from pyvirt.bench.matrix import Matrix
from pyvirt.bench.measure import Visit, disk_visit, net_visit, serial
from pyvirt.bench.net import NetPoint
from pyvirt.bench.place import Place
from pyvirt.bench.results import Failure, Results, Row
from pyvirt.errors import PyvirtError, SpecError, UnsupportedError
from pyvirt.running.guest import build

#: After so many failures in a row a point is left alone.
GIVE_UP = 2


@frozen
class Progress:
    """How far a run is: `done` of `total` visits, seconds spent, and seconds left as estimated."""

    done: int
    total: int
    doing: str
    elapsed: float
    remaining: float

    def __str__(self) -> str:
        return f"{self.done}/{self.total} {self.doing}, {self.remaining:.0f} s left"


def run(
    matrix: Matrix,
    *,
    path: str | os.PathLike[str] | None = None,
    progress: Callable[[Progress], object] | None = None,
    cancel: Callable[[], bool] | None = None,
    directory: str | os.PathLike[str] | None = None,
) -> Results:
    """Measure all points of `matrix`, round by round; what came out.

    With `path` the results are saved there after each round. `progress` is called before
    each visit. `cancel` is asked as often: when it says True, or at a KeyboardInterrupt,
    what was measured so far is the result, with "cancelled" in its `meta`. A point that
    fails is a `Failure` among the results, and the others go on in a fresh guest.
    `directory` is for the images of backing "file".

    Raises, before anything is measured, `OSError` (ENOSPC) when the images have no room,
    `UnsupportedError` or `DownloadError` when the guest cannot be had.
    """
    with _Run(matrix, progress, cancel, directory) as running:
        return running.whole(path)


class _Cancelled(Exception):
    pass


class _Run:
    """A run: the guests and ends that are up, and what was measured so far."""

    def __init__(
        self,
        matrix: Matrix,
        progress: Callable[[Progress], object] | None,
        cancel: Callable[[], bool] | None,
        directory: str | os.PathLike[str] | None,
    ) -> None:
        self._matrix = matrix
        self._progress = progress or (lambda _: None)
        self._cancel = cancel or (lambda: False)
        self._images = Images(directory)
        self._guests: dict[Place, BenchGuest] = {}
        self._ends: dict[tuple[str, Place | None], HostEnd | TapEnd | PeerEnd] = {}
        self._rows: list[Row] = []
        self._failures: list[Failure] = []
        self._failing: Counter[str] = Counter()
        self._meta: dict[str, Any] = {}
        self._begun = time.monotonic()
        self._durations: list[float] = []
        counts = len(self._countable()) if matrix.counts else 0
        self._total = len(matrix.points) * (matrix.rounds + matrix.warm_up) + counts
        self._done = 0

    # The whole

    def whole(self, path: str | os.PathLike[str] | None) -> Results:
        self._meta |= {
            "started": _now(),
            "pyvirt": sys.modules["pyvirt"].__version__,  # the roof, which no floor imports
            "host": host.facts(),
            "rounds": self._matrix.rounds,
            "cancelled": False,
            "guests": {},
            "plugged": {},
            "conditions": {},
        }
        self._prepare()
        try:
            for _round in self._rounds():
                self._save(path)
        except (KeyboardInterrupt, _Cancelled):
            self._meta["cancelled"] = True
        self._save(path)
        return self.results()

    def results(self) -> Results:
        """What was measured so far."""
        self._meta["ended"] = _now()
        return Results(self._rows, self._failures, dict(self._meta), self._matrix.pairs)

    def _save(self, path: str | os.PathLike[str] | None) -> None:
        if path is not None:
            self.results().save(path)

    def _prepare(self) -> None:
        """Whatever can fail for everyone, before anything is measured."""
        self._tell("preparing")
        self._images.make(p for p in self._matrix.points if isinstance(p, DiskPoint))
        build(GUEST, progress=self._preparing)

    def _preparing(self, what: str, share: float | None) -> None:
        self._tell(what if share is None else f"{what} {share:.0%}")

    def _rounds(self) -> Iterator[int]:
        """Do one round after another, and then count point by point."""
        matrix = self._matrix
        for number in range(matrix.warm_up + matrix.rounds):
            round = number - matrix.warm_up
            for order, point in matrix.order(number):
                self._visit(point, round, order)
            yield round
        if matrix.counts:
            for order, point in enumerate(self._countable()):
                self._visit(point, matrix.rounds - 1, order, counting=True)
                yield matrix.rounds - 1

    def _countable(self) -> list[Any]:
        return [point for point in self._matrix.points if point.workload.countable]

    # One visit

    def _visit(self, point: Any, round: int, order: int, *, counting: bool = False) -> None:
        if self._cancel():
            raise _Cancelled
        self._tell(f"{point.name}, " + _which(round, counting))
        begun = time.monotonic()
        if self._failing[point.name] < GIVE_UP:
            self._try(point, round, order, counting)
            self._durations.append(time.monotonic() - begun)
        self._done += 1

    def _try(self, point: Any, round: int, order: int, counting: bool) -> None:
        try:
            guest = self._guest(point)
            with self._opened(guest, point, counting) as visit:
                if visit.words and not counting:
                    self._meta["plugged"][point.name] = list(visit.words)
                if counting:
                    self._keep(point, round, order, visit.count(), busy=False)
                else:
                    self._run(guest, point, visit, round, order)
                    if self._matrix.counts and round == self._matrix.rounds - 1:
                        self._keep(point, round, order, visit.follow(), busy=False)
                self._meta |= {key: value for key, value in visit.told.items() if value}
        except Exception as error:  # whatever it is, the other points go on
            self._failed(point, round, error)
        else:
            self._failing[point.name] = 0

    def _opened(
        self, guest: BenchGuest, point: Any, counting: bool
    ) -> AbstractContextManager[Visit]:
        limit = self._matrix.limit
        if isinstance(point, DiskPoint):
            path = self._images.path(point)
            return disk_visit(guest, point, path, limit, counting=counting)
        return net_visit(guest, point, self._end(point), limit, counting=counting)

    def _run(self, guest: BenchGuest, point: Any, visit: Visit, round: int, order: int) -> None:
        """Run it, and once more when the host was busy; the warm-up need not be perfect."""
        repeats = self._matrix.repeats if round >= 0 else 0
        for attempt in range(1, repeats + 2):
            before = host.snapshot(self._pids())
            figures = visit.run()
            condition = host.between(before, host.snapshot(self._pids()))
            if not condition.busy or attempt > repeats:
                break
        if round < 0:
            return
        self._keep(point, round, order, figures, busy=condition.busy)
        told = {"round": round, "attempts": attempt, **asdict(condition)}
        self._meta["conditions"].setdefault(point.name, []).append(told)

    def _pids(self) -> list[int]:
        return [
            pid
            for held in (*self._guests.values(), *self._ends.values())
            for pid in held.pids
        ]

    def _keep(
        self, point: Any, round: int, order: int, figures: list[Figure], *, busy: bool
    ) -> None:
        for figure in figures:
            self._rows.append(
                Row(
                    point.name,
                    point.device,
                    point.workload.label,
                    round,
                    order,
                    figure.metric,
                    figure.value,
                    figure.unit,
                    busy,
                    point.options,
                )
            )

    def _failed(self, point: Any, round: int, error: Exception) -> None:
        """Keep why; what is left in the guest nobody knows, so the next point gets a fresh one."""
        guest = self._guests.get(point.place)
        words = "" if guest is None else guest.last_words()
        expected = isinstance(error, PyvirtError | OSError)
        reason = str(error) if expected else repr(error)
        self._failures.append(Failure(point.name, max(round, 0), reason, words))
        if isinstance(error, UnsupportedError | SpecError):  # refused before anything was done
            self._failing[point.name] += GIVE_UP
            return
        self._failing[point.name] += 1
        if guest is not None:
            self._guests.pop(point.place).close()
        if isinstance(point, NetPoint):
            for end in self._ends.values():
                end.close()
            self._ends.clear()

    # What is up

    def _guest(self, point: Any) -> BenchGuest:
        """The guest of a point, booted when it is not up; the others stand still."""
        for place, other in self._guests.items():
            if place != point.place:
                other.running.pause()
        if point.place not in self._guests:
            residents = {
                serial(one): one.disk(self._images.path(one), serial(one))
                for one in self._matrix.points
                if isinstance(one, DiskPoint) and one.resident and one.place == point.place
            }
            guest = BenchGuest(point.place, residents, self._preparing)
            self._guests[point.place] = guest
            self._describe(guest)
        guest = self._guests[point.place]
        guest.running.resume()
        return guest

    def _describe(self, guest: BenchGuest) -> None:
        running = guest.running
        self._meta |= {
            "qemu": ".".join(map(str, running.capabilities.version)),
            "accelerator": self._accelerators(running.accelerator.name),
            "accelerator reason": running.accelerator.reason,
            "guest kernel": guest.kernel,
        }
        self._meta["guests"][str(guest.place)] = guest.command_line()

    def _accelerators(self, name: str) -> str:
        """That of this guest and of those before: figures of several bear all their names."""
        before = self._meta.get("accelerator")
        return name if before is None or name in before else f"{before} and {name}"

    def _end(self, point: NetPoint) -> HostEnd | TapEnd | PeerEnd:
        peer = point.place if point.backend == "stream" else None
        kind = "host" if point.backend in ("user", "passt") else point.backend
        if (kind, peer) not in self._ends:
            self._ends[kind, peer] = self._new_end(kind, point.place)
        return self._ends[kind, peer]

    def _new_end(self, kind: str, place: Place) -> HostEnd | TapEnd | PeerEnd:
        if kind == "stream":
            return PeerEnd(place, self._preparing)
        return TapEnd() if kind == "tap" else HostEnd()

    def _tell(self, doing: str) -> None:
        elapsed = time.monotonic() - self._begun
        spent = self._durations
        left = self._total - self._done
        guess = sum(spent) / len(spent) * left if spent else self._matrix.seconds
        self._progress(Progress(self._done, self._total, doing, elapsed, guess))

    def close(self) -> None:
        for held in (*self._guests.values(), *self._ends.values()):
            held.close()
        self._guests.clear()
        self._ends.clear()
        self._images.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _which(round: int, counting: bool) -> str:
    if counting:
        return "counting"
    return "warming up" if round < 0 else f"round {round + 1}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
