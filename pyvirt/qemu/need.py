"""What a start acquires for QEMU's options, and an end gives back: plain values.

A part of a description yields needs beside its options; the options refer to them by
`Late(need.name)`. Only `pyvirt.running` knows how to acquire them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from pyvirt.qemu.option import Late, Option


@frozen
class Need:
    """Something acquired under `name` before QEMU starts."""

    name: str


@frozen
class Socketpair(Need):
    """A connected pair: QEMU is given one end as an fd, this process keeps the other."""


@frozen
class TemporaryFile(Need):
    """A file in the VM's temporary directory; supplies its path."""

    content: bytes = field(default=b"", repr=False)  # it may be a password
    suffix: str = ""


@frozen
class TemporaryPath(Need):
    """A path in the VM's temporary directory at which QEMU or a companion makes something."""

    suffix: str = ""


@frozen
class InputPipe(Need):
    """A path for QEMU's ``pipe`` that only leads in: what QEMU writes there is gone."""


@frozen
class CopiedFile(Need):
    """A writable copy of `source`: kept at `path` when given (made once), else temporary."""

    source: Path
    path: Path | None = None


@frozen
class TemporaryOverlay(Need):
    """An empty qcow2 image as large as the image `backing`, made anew for this run.

    `backing` is what ``-blockdev`` takes, with `Late`s; `objects` are the secrets that it
    names. The words for ``qemu-img`` come from `pyvirt.qemu.overlay`. Supplies the path.
    It grows by all that the guest writes, so it belongs on a disk rather than in memory.
    """

    backing: Mapping[str, Any] = field(factory=dict)
    objects: tuple[Option, ...] = ()


@frozen
class TapFds(Need):
    """Opened queues of a tap interface; supplies the fds, colon-separated.

    The interface is made when absent and then dies with its fds. `receive` and `send` are
    the bytes a second that the guest may, `burst` those that may pass at once.
    """

    ifname: str | None = None
    bridge: str | None = None
    queues: int = 1
    vnet_header: bool = True
    mtu: int | None = None
    receive: int | None = None
    send: int | None = None
    burst: int | None = None


@frozen
class VhostFds(Need):
    """`queues` fds of ``/dev/vhost-net`` or another vhost device at `path`; colon-separated.

    An `optional` one supplies nothing where the device cannot be opened.
    """

    path: Path = Path("/dev/vhost-net")
    queues: int = 1
    optional: bool = False


@frozen
class GivenFds(Need):
    """Open descriptors of this process, of which QEMU gets copies; colon-separated.

    What uses `inherited` ones does not find those that a running QEMU is given.
    """

    fds: tuple[int, ...] = ()
    inherited: bool = False


@frozen
class HostPath(Need):
    """Something of the host's that must be there, or the start is refused with `hint`.

    `path` must exist, and with `target` be a symbolic link to something of that name.
    Supplies the path.
    """

    path: Path
    target: str | None = None
    hint: str = ""


@frozen
class Companion(Need):
    """A program that runs beside QEMU (swtpm, virtiofsd, passt).

    `arguments` may hold `Late`s; ``Late("directory")`` is a directory of its own.
    It is ready when the socket file `socket` (in that directory) accepts connections,
    whose path is what it supplies. `hint` names the package to install.
    """

    program: str
    arguments: tuple[str | Late, ...] = ()
    socket: str = "socket"
    hint: str = ""
    environment: Mapping[str, str] = field(factory=dict)


@frozen
class Peer(Need):
    """A program at the other end of a socket pair (passt); supplies QEMU's end as an fd.

    `arguments` may hold `Late`s; ``Late("fd")`` is the program's end. It is ready when it
    has confined itself with seccomp, and ends when QEMU's end is closed. `hint` names the
    package to install.
    """

    program: str
    arguments: tuple[str | Late, ...] = ()
    hint: str = ""
