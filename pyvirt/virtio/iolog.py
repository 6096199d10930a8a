"""What disks were asked for, as a fio iolog of version 3, which `fio --read_iolog` replays.

Times are microseconds from the start of the trace, and 1 more. fio's manual does not say the
unit; it is what fio writes and waits by since it has version 3 (3.31). The first time must not
be 0, which fio takes for none: it would not wait for what comes next.

Reads and writes stand with offset and length, flushes as "sync", discards and secure erases as
"trim", a line for each of their ranges (fio 3.33 and older leave these out of a replay, saying
"bad ddir"). Zeroes are written by fio as data: "write". What else a guest
asks of a disk (its name, its capacity) is no I/O of fio and is left out, and so is what could
not be decoded. What the trace lost is not there, and what is uncertain is: see `Trace.lost`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from pyvirt.errors import SpecError
from pyvirt.virtio.kinds import kind_of
from pyvirt.virtio.requests import BlkRequest, Request, ScsiRequest
from pyvirt.virtio.writing import written

if TYPE_CHECKING:
    from pyvirt.virtio.trace import Trace

_DISKS = ("virtio-blk", "virtio-scsi")
_ACTIONS = {
    "read": "read", "write": "write", "flush": "sync", "discard": "trim", "secure-erase": "trim",
    "write-zeroes": "write", "zone-append": "write", "unmap": "trim", "write-same": "write",
}  # fmt: skip
_SECTOR = 512
#: fio keeps a length in 32 bits, and has a buffer of the longest one.
_LONGEST = 1 << 30

_Action = tuple[int, str, str, int, int]  # time, file, action, offset, length


def write(
    trace: Trace,
    file: str | os.PathLike[str] | IO[bytes],
    device: str | None = None,
    name: str | None = None,
) -> int:
    """Write the I/O of a trace's disks; how many lines of it there are.

    A disk is named by its device, one behind virtio-scsi by its target and unit too
    ("scsi0.1.0"); with `name` all lines name that one file. Blocks of SCSI disks are as large as
    their reads and writes show, 512 bytes where there was none.
    """
    if device is not None and device not in (known := [one.device for one in trace.queues]):
        raise SpecError("device", f"must be one of {', '.join(dict.fromkeys(known))}", device)
    actions = list(_actions(trace, device))
    if name is not None:
        actions = [(time, name, *rest) for time, _, *rest in actions]  # type: ignore[misc]
    _check({action[1] for action in actions})
    written(file, (f"{line}\n".encode() for line in _lines(actions)))
    return len(actions)


def _check(names: set[str]) -> None:
    """fio reads words of at most 255 characters."""
    for name in names:
        if not name or len(name.encode()) > 255 or any(letter.isspace() for letter in name):
            raise SpecError("name", "must be 1 to 255 characters without spaces", name)


def _lines(actions: list[_Action]) -> Iterator[str]:
    names = list(dict.fromkeys(action[1] for action in actions))
    yield "fio version 3 iolog"
    yield from (f"1 {name} {act}" for act in ("add", "open") for name in names)
    for time, name, act, offset, length in actions:
        yield f"{time} {name} {act} {offset} {length}"
    last = actions[-1][0] if actions else 1
    yield from (f"{last} {name} close" for name in names)


def _actions(trace: Trace, device: str | None) -> Iterator[_Action]:
    blocks: dict[str, int] = {}
    requests = [
        (_file(request), request)
        for place in range(len(trace))
        if _is_disk(trace, place, device) and (request := trace[place]).operation in _ACTIONS
    ]
    for name, request in requests:
        if isinstance(request, ScsiRequest) and request.block_size:
            blocks.setdefault(name, request.block_size)
    for name, request in requests:
        time = 1 + round((request.made or 0) * 1e6)
        act = _action(request)
        for offset, length in _places(request, blocks.get(name, _SECTOR)):
            for part in range(0, max(1, length), _LONGEST):
                yield time, name, act, offset + part, min(_LONGEST, length - part)


def _is_disk(trace: Trace, place: int, device: str | None) -> bool:
    queue = trace.queue_of(place)
    return kind_of(queue.kind) in _DISKS and device in (None, queue.device)


def _action(request: Request) -> str:
    given_back = isinstance(request, ScsiRequest) and request.command.unmap
    return "trim" if given_back else _ACTIONS[request.operation]


def _file(request: Request) -> str:
    name = request.device or request.kind
    if isinstance(request, ScsiRequest):
        return f"{name}.{request.lun.target}.{request.lun.lun}"
    return name


def _places(request: Request, block: int) -> Iterator[tuple[int, int]]:
    """The bytes that a request is about; (0, 0) for a flush."""
    if request.operation == "flush":
        yield 0, 0
    elif isinstance(request, BlkRequest) and request.operation in (
        "discard", "write-zeroes", "secure-erase",
    ):  # fmt: skip
        yield from ((one.offset, one.length) for one in request.ranges if one.length)
    elif isinstance(request, ScsiRequest) and request.operation == "unmap":
        yield from ((first * block, count * block) for first, count in request.unmaps if count)
    elif isinstance(request, ScsiRequest) and request.operation == "write-same":
        # 0 blocks are all from there to an end that is not known.
        if request.command.blocks:
            yield (request.command.lba or 0) * block, request.command.blocks * block
    elif request.offset is not None and request.length:
        yield request.offset, request.length
