from collections.abc import Sequence
from typing import Final, Self

from pyvirt._native.vring import Queue

PRIVATE: Final[int]
RECORD_SIZE: Final[int]
SNAP_MOST: Final[int]

def duplicate(pidfd: int, fd: int) -> int: ...
def rebase(records: bytearray, base: int) -> None: ...

class Sampler:
    started: int
    ended: int
    looks: int
    longest: int
    spent: int
    def __new__(
        cls,
        queues: Sequence[tuple[Queue, bool]],
        snap: int,
        room: int,
        interval: int,
        tick: int,
        idle: int,
        quiet: int,
        settle: int,
        share: int,
        realtime: bool,
        notice: int,
        bells: int,
    ) -> Self: ...
    def run(self) -> None: ...
    def stop(self) -> None: ...
    def take(self, base: int) -> tuple[bytearray, bytearray]: ...
    @property
    def dropped(self) -> int: ...
    def counts(self) -> list[tuple[int, int, int, int, int, int, int]]: ...
