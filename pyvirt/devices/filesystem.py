"""Folders of the host's in the guest: 9p by QEMU itself, virtio-fs by virtiofsd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached, present
from pyvirt.devices.backend import boolean, chardev_id
from pyvirt.disk.throttle import Throttle
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Companion, Need
from pyvirt.qemu.option import Late, Option
from pyvirt.qemu.part import At

permissions = fields.between(0, 0o7777)


def _tag(instance: Any, attribute: Any, value: Any) -> None:
    fields.text(instance, attribute, value)
    if not 1 <= len(value.encode()) <= 31:
        raise SpecError(attribute.name, "must have 1 to 31 bytes", value)


@frozen
class Plan9(Attached):
    """The folder `path`, mounted in the guest by its `mount_tag` (``mount -t 9p -o trans=virtio``).

    `security_model` says where owners and modes are kept: in extended attributes
    ("mapped-xattr"), in hidden files ("mapped-file"), in the host's own ("passthrough", which
    wants root), or nowhere ("none"). `throttling` limits the guest.
    """

    path: Path = field(converter=Path)
    mount_tag: str = field(validator=_tag)
    security_model: str = field(
        default="mapped-xattr",
        validator=fields.choice("mapped-xattr", "mapped-file", "passthrough", "none"),
        kw_only=True,
    )
    readonly: bool = field(default=False, validator=boolean, kw_only=True)
    writeout: str | None = field(
        default=None, validator=fields.optional(fields.choice("immediate")), kw_only=True
    )
    multidevs: str | None = field(
        default=None,
        validator=fields.optional(fields.choice("remap", "forbid", "warn")),
        kw_only=True,
    )
    fmode: int | None = field(default=None, validator=fields.optional(permissions), kw_only=True)
    dmode: int | None = field(default=None, validator=fields.optional(permissions), kw_only=True)
    throttling: Throttle | None = field(
        default=None, validator=fields.optional(fields.kind(Throttle)), kw_only=True
    )

    PREFIX, DRIVER = "fs", "virtio-9p-pci"

    def __attrs_post_init__(self) -> None:
        if not self.security_model.startswith("mapped"):
            for name in ("fmode", "dmode"):
                if getattr(self, name) is not None:
                    raise SpecError(name, "belongs to mapped security models", getattr(self, name))

    def options(self, at: At) -> Iterator[Option | Need]:
        yield Option("fsdev", self._fsdev(at))
        yield self.literal(
            at.virtio("9p"), at, {"fsdev": f"{at.name}-fsdev", "mount_tag": self.mount_tag}
        )

    def _fsdev(self, at: At) -> dict[str, Any]:
        given = {
            "path": str(self.path),
            "security_model": self.security_model,
            "readonly": self.readonly or None,
            "writeout": self.writeout,
            "multidevs": self.multidevs,
            "fmode": _octal(self.fmode),
            "dmode": _octal(self.dmode),
            **_limits(self.throttling),
        }
        return {"fsdriver": "local", "id": f"{at.name}-fsdev", **present(given)}


def _limits(throttling: Throttle | None) -> dict[str, Any]:
    if throttling is None:
        return {}
    return {f"throttling.{name}": value for name, value in throttling.limits.items()}


def _octal(mode: int | None) -> str | None:
    return None if mode is None else f"0{mode:o}"


@frozen
class VirtioFs(Attached):
    """The folder `source`, mounted in the guest by its `tag` (``mount -t virtiofs``).

    A virtiofsd is started beside QEMU; it reads and writes the guest's memory, which
    therefore must be shared. With `socket`, one that runs already is used. `arguments` are
    added to virtiofsd's.
    """

    source: Path = field(converter=Path)
    tag: str = field(validator=_tag)
    cache: str | None = field(
        default=None,
        validator=fields.optional(fields.choice("auto", "always", "never", "none", "metadata")),
        kw_only=True,
    )
    sandbox: str | None = field(
        default=None,
        validator=fields.optional(fields.choice("namespace", "chroot", "none")),
        kw_only=True,
    )
    xattr: bool = field(default=False, validator=boolean, kw_only=True)
    num_request_queues: int | None = field(
        default=None, validator=fields.optional(fields.positive), kw_only=True
    )
    queue_size: int | None = field(
        default=None, validator=fields.optional(fields.between(1, 1024)), kw_only=True
    )
    bootindex: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 0x7FFFFFFF)), kw_only=True
    )
    socket: str | None = field(default=None, kw_only=True)
    program: str = field(default="virtiofsd", validator=fields.text, kw_only=True)
    arguments: tuple[str, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.text), kw_only=True
    )

    PREFIX, DRIVER = "fs", "vhost-user-fs-pci"
    needs_shared_memory = True

    def __attrs_post_init__(self) -> None:
        if "," in str(self.source) and self.socket is None:
            raise SpecError("source", "must have no comma: virtiofsd splits there", self.source)
        if self.queue_size is not None and self.queue_size & (self.queue_size - 1):
            raise SpecError("queue_size", "must be a power of two", self.queue_size)

    def options(self, at: At) -> Iterator[Option | Need]:
        if self.socket is None:
            yield self._companion(at)
        path = Late(f"{at.name}-virtiofsd") if self.socket is None else self.socket
        yield Option("chardev", {"backend": "socket", "id": chardev_id(at.name), "path": path})
        yield self.device(
            at.virtio("fs").replace("virtio-", "vhost-user-", 1),
            at,
            chardev=chardev_id(at.name),
            tag=self.tag,
            num_request_queues=self.num_request_queues,
            queue_size=self.queue_size,
            bootindex=self.bootindex,
        )

    def _companion(self, at: At) -> Companion:
        # QEMU's own virtiofsd in C and its successor in Rust both understand these.
        settings = [f"source={self.source}"]
        settings += [] if self.cache is None else [f"cache={self.cache}"]
        settings += [] if self.sandbox is None else [f"sandbox={self.sandbox}"]
        settings += ["xattr"] if self.xattr else []
        options = [word for setting in settings for word in ("-o", setting)]
        return Companion(
            f"{at.name}-virtiofsd",
            self.program,
            (Late("directory", "--socket-path={}/socket"), *options, *self.arguments),
            hint="install virtiofsd (in Debian 12 it is part of qemu-system-common)",
        )
