"""Nodes whose data is on this host, or nowhere."""

from __future__ import annotations

import os

from attrs import field

from pyvirt import fields
from pyvirt.disk.filename import filename, to_filename
from pyvirt.disk.node import BlockNode
from pyvirt.fields import frozen

AIO = ("threads", "native", "io_uring")


@frozen
class Local(BlockNode):
    """A file or device of this host: what QEMU's drivers of them have in common."""

    filename: str = field(converter=to_filename, validator=filename)
    aio: str | None = field(
        default=None, validator=fields.optional(fields.choice(*AIO)), kw_only=True
    )
    aio_max_batch: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 2**63 - 1)), kw_only=True
    )
    locking: str | None = field(
        default=None, validator=fields.optional(fields.choice("auto", "on", "off")), kw_only=True
    )
    pr_manager: str | None = field(
        default=None, validator=fields.optional(fields.name), kw_only=True
    )


@frozen
class File(Local):
    """A regular file. Every name is a plain file name: nothing in it is special to QEMU."""

    @property
    def driver(self) -> str:
        return "file"


@frozen
class HostDevice(Local):
    """A disk or partition of the host (``/dev/sdb``), or a ``/dev/sg`` for pass-through."""

    @property
    def driver(self) -> str:
        return "host_device"


@frozen
class HostCDROM(Local):
    """An optical drive of the host (``/dev/sr0``)."""

    @property
    def driver(self) -> str:
        return "host_cdrom"


@frozen
class Null(BlockNode):
    """A disk of `size` bytes without data: it forgets writes, and reads end at once.

    `read_zeroes` fills buffers on read; without it the guest sees whatever was there.
    `latency_ns` delays each request.
    """

    size: int = field(converter=fields.to_size, validator=fields.between(0, 2**63 - 1))
    read_zeroes: bool = field(default=True, validator=fields.kind(bool), kw_only=True)
    latency_ns: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 2**63 - 1)), kw_only=True
    )

    @property
    def driver(self) -> str:
        return "null-co"


def to_node(file: str | os.PathLike[str] | BlockNode) -> BlockNode:
    """`file` itself when it is a node, else the `File` of that name."""
    return file if isinstance(file, BlockNode) else File(file)
