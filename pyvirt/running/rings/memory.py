"""The memory of a running guest, as QEMU shares it with this process."""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from attrs import evolve, frozen

from pyvirt.errors import ClosedError, UnsupportedError
from pyvirt.flows.memory import HIGH, Module, Place, modules, place, unshared
from pyvirt.flows.steps import Act
from pyvirt.qmp.flow import Command
from pyvirt.running.engine import Engine
from pyvirt.virtio.memory import GuestMemory, Region

# VGA's window on the ISA bus: memory behind it is not what the guest sees there.
_VGA, _VGA_END = 0xA0000, 0xC0000

# Not in Python's fcntl: linux/fcntl.h.
_F_GET_SEALS, _F_SEAL_SHRINK = 1034, 2


@frozen
class Mapping:
    """`start` to `end` in QEMU's address space are in a file, from byte `offset` on."""

    start: int
    end: int
    offset: int
    file: tuple[str, int]  # device and inode
    shared: bool


@frozen
class Piece:
    """`size` bytes of guest memory from `guest` on, in a file of QEMU's, byte `offset` on."""

    guest: int
    size: int
    inode: int
    offset: int
    name: str

    @property
    def end(self) -> int:
        return self.guest + self.size


def mappings(pid: int) -> list[Mapping]:
    """What is mapped of files, adjacent pieces as one: NUMA policies divide them."""
    found: list[Mapping] = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, flags, offset, device, inode, *_ = line.split(maxsplit=5)
        start, end = (int(part, 16) for part in span.split("-"))
        one = Mapping(start, end, int(offset, 16), (device, int(inode)), flags[3] == "s")
        last = found[-1] if found else None
        if (
            last
            and (last.end, last.file, last.shared) == (start, one.file, one.shared)
            and (last.offset + last.end - last.start == one.offset)
        ):
            found[-1] = evolve(last, end=end)
        else:
            found.append(one)
    return found


def derive(engine: Engine) -> Act[tuple[Piece, ...]]:
    """The pieces of memory that the guest started with: where they are, and in which files.

    From 768 KiB to 1 MiB that is the RAM which firmware copies itself to, even before it has.

    QEMU itself is asked where an address lies (``gpa2hva``), so that this knows nothing of
    machine types, of ``max-ram-below-4g`` and of the order of NUMA nodes.
    """
    known = mappings(engine.pid)
    base = (yield Command("query-memory-size-summary"))["base-memory"]
    low = yield from _run(engine, known, 0, min(base, HIGH))
    rest = base - sum(piece.size for piece in low)
    high = yield from _run(engine, known, HIGH, HIGH + rest)
    missing = rest - sum(piece.size for piece in high)
    if missing:
        raise UnsupportedError(
            f"reading all {base} bytes of guest memory",
            "this machine",
            f"{missing} of them are not where pyvirt looks",
        )
    return tuple((yield from _without_vga(low))) + tuple(high)


def _run(engine: Engine, known: Sequence[Mapping], guest: int, limit: int) -> Act[list[Piece]]:
    """Adjacent pieces from `guest` on."""
    pieces: list[Piece] = []
    while guest < limit:
        at = yield from place(guest)
        if at is None:
            break
        mapping = _mapping(engine, known, at, "memory")
        size = yield from _cut(at, min(mapping.end - at.host, limit - guest))
        pieces.append(_piece(mapping, at, size))
        guest += size
    return pieces


def _cut(at: Place, size: int) -> Act[int]:
    """How much of `size` bytes is really there: the rest is above the hole."""
    last = yield from place(at.guest + size - 1)
    if last is not None and last.host == at.host + size - 1:
        return size
    above = yield from place(HIGH)
    if above is not None and at.host < above.host < at.host + size:
        return above.host - at.host
    low, high = 0, size  # somewhere between; memory is there at low and not at high
    while high - low > 1:
        middle = (low + high) // 2
        found = yield from place(at.guest + middle)
        there = found is not None and found.host == at.host + middle
        low, high = (middle, high) if there else (low, middle)
    return high


def _without_vga(low: Sequence[Piece]) -> Act[list[Piece]]:
    """Where a graphics card has its window, the guest does not see its memory."""
    window = yield from place(_VGA)
    if not low or (window is not None and window.name == low[0].name):
        return list(low)
    kept = []
    for piece in low:
        before, after = min(piece.end, _VGA), max(piece.guest, _VGA_END)
        if piece.guest < before:
            kept.append(evolve(piece, size=before - piece.guest))
        if after < piece.end:
            moved = after - piece.guest
            kept.append(
                evolve(piece, guest=after, size=piece.size - moved, offset=piece.offset + moved)
            )
    return kept


def plugged(engine: Engine, present: Sequence[Module]) -> Act[tuple[Piece, ...]]:
    """The pieces of memory that were plugged."""
    known = mappings(engine.pid) if present else []
    pieces = []
    for module in present:
        at = yield from place(module.guest)
        if at is not None:
            name = module.backend.removeprefix("/objects/").removesuffix("-memory")
            mapping = _mapping(engine, known, at, name)
            pieces.append(_piece(mapping, at, min(module.size, mapping.end - at.host)))
    return tuple(pieces)


def _mapping(engine: Engine, known: Sequence[Mapping], at: Place, field: str) -> Mapping:
    for mapping in known:
        if mapping.start <= at.host < mapping.end:
            if mapping.shared and mapping.file[1]:
                return mapping
            break
    backing = engine.vm.memory if field == "memory" else None
    if backing is not None and backing.backend == "anonymous":
        raise unshared(f"{field}.backend", "anonymous")
    raise unshared(f"{field}.share", False)


def _piece(mapping: Mapping, at: Place, size: int) -> Piece:
    offset = mapping.offset + at.host - mapping.start
    return Piece(at.guest, size, mapping.file[1], offset, at.name)


class Files:
    """The files of a process, opened by device and inode; close them with the `stack`."""

    def __init__(self, pid: int, stack: ExitStack) -> None:
        self._pid, self._stack = pid, stack
        self._open: dict[int, int] = {}

    def open(self, inode: int) -> int:
        """A descriptor for reading."""
        if inode not in self._open:
            fd = self._find(inode)
            self._stack.callback(os.close, fd)
            self._open[inode] = fd
        return self._open[inode]

    def _find(self, inode: int) -> int:
        for entry in os.scandir(f"/proc/{self._pid}/fd"):
            try:
                if os.stat(entry.path).st_ino == inode:
                    return os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except FileNotFoundError:
                continue
        raise UnsupportedError(
            "reading guest memory from outside", "a QEMU that closed the file of its memory"
        )


def attach(pid: int, pieces: Sequence[Piece]) -> GuestMemory:
    """Memory over the files that QEMU keeps these pieces in.

    What can shrink is not mapped: reading behind its end would be a SIGBUS.
    """
    with ExitStack() as stack:
        files = Files(pid, stack)
        return GuestMemory.of([_opened(files.open(piece.inode), piece) for piece in pieces])


def _opened(fd: int, piece: Piece) -> Region:
    mapped = _map(fd, piece) if sealed(fd) else None
    return Region(piece.guest, piece.size, mapped, fd, piece.offset, piece.name)


def sealed(fd: int) -> bool:
    """Whether the file keeps its size for ever, as QEMU's memfds do (memfd_create(2))."""
    try:
        return bool(fcntl.fcntl(fd, _F_GET_SEALS) & _F_SEAL_SHRINK)
    except OSError:
        return False


def _map(fd: int, piece: Piece) -> memoryview:
    skip = piece.offset % mmap.ALLOCATIONGRANULARITY
    length = skip + piece.size
    mapped = mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=piece.offset - skip)
    return memoryview(mapped)[skip:]


class LiveMemory:
    """The guest memory of one VM, made when it is first asked for and when modules change."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._base: tuple[Piece, ...] = ()
        self._modules: tuple[Module, ...] = ()
        self._memory: GuestMemory | None = None

    def now(self) -> Act[GuestMemory]:
        """Guest memory with the modules that are plugged now."""
        present = yield from modules()
        if self._memory is None or present != self._modules:
            self._base = self._base or (yield from derive(self._engine))
            more = yield from plugged(self._engine, present)
            self._memory = attach(self._engine.pid, (*self._base, *more))
            self._modules = present
            self._until_the_end(self._memory)
        return self._memory

    def _until_the_end(self, memory: GuestMemory) -> None:
        name, door = self._engine.vm.name, weakref.ref(memory.door)

        def end(future: object) -> None:
            held = door()
            if held is not None:
                held.end(ClosedError(name, str(self._engine.ended.result())))

        self._engine.ended.add_done_callback(end)
