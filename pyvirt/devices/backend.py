"""Where a character device leads on the host: ``-chardev`` back ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import present, unix_path
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import InputPipe, Need, Socketpair, TemporaryPath
from pyvirt.qemu.option import Late, Option

port_number = fields.between(0, 65535)
boolean = fields.kind(bool)


@frozen(kw_only=True)
class Backend:
    """A chardev. QEMU also writes what the guest sends to `logfile`, if given.

    `mux` lets several devices use it at once, on the command line only.
    """

    logfile: Path | None = field(default=None, converter=fields.to_path)
    logappend: bool | None = field(default=None, validator=fields.optional(boolean))
    mux: bool = field(default=False, validator=boolean)

    KIND: ClassVar[str] = ""

    def __attrs_post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Raise `SpecError` when the fields do not go together."""

    def own(self, name: str) -> Mapping[str, Any]:
        """The properties of this kind of back end, for the device `name`."""
        return {}

    def needs(self, name: str) -> Iterator[Need]:
        """What a start must acquire for it."""
        return iter(())

    def options(self, name: str) -> Iterator[Option | Need]:
        """The chardev of the device `name`; its id is ``<name>-chardev``."""
        yield from self.needs(name)
        common = {
            "logfile": None if self.logfile is None else str(self.logfile),
            "logappend": self.logappend,
            "mux": self.mux or None,
        }
        head = {"backend": self.KIND, "id": chardev_id(name)}
        yield Option("chardev", {**head, **present({**common, **self.own(name)})}, "backend")


def chardev_id(name: str) -> str:
    """The id of the chardev behind the device `name`."""
    return f"{name}-chardev"


@frozen(kw_only=True)
class Captured(Backend):
    """Written down by QEMU itself, so that nobody has to read for the guest to go on.

    QEMU writes the file that the need ``<name>-log`` supplies; `logfile` keeps it. Whoever
    wants to type writes to the FIFO ``<name>-input.in``: not a socket, because QEMU logs some
    bytes twice while a connection's buffer is full (measured on 7.2.22, where 280 unread
    bytes fill it; `qemu_chr_write_buffer` in chardev/char.c takes EAGAIN for an end). Of a
    temporary file only the last `limit` bytes are kept: a guest may write for ever.
    """

    limit: int = field(default=64 << 20, converter=fields.to_size, validator=fields.positive)

    KIND = "pipe"

    def needs(self, name: str) -> Iterator[Need]:
        yield InputPipe(f"{name}-input")
        if self.logfile is None:
            yield TemporaryPath(f"{name}-log", suffix=".log")

    def own(self, name: str) -> Mapping[str, Any]:
        logfile = Late(f"{name}-log") if self.logfile is None else str(self.logfile)
        return {
            "path": Late(f"{name}-input"),
            "logfile": logfile,
            "logappend": self.logappend or False,
        }


@frozen(kw_only=True)
class Piped(Backend):
    """A connected socket: one end is QEMU's, this process keeps the other (``<name>-fd``)."""

    KIND = "socket"

    def needs(self, name: str) -> Iterator[Need]:
        yield Socketpair(f"{name}-fd")

    def own(self, name: str) -> Mapping[str, Any]:
        return {"fd": Late(f"{name}-fd")}


@frozen
class File(Backend):
    """Output to the file `path`, which is emptied first unless `append`."""

    path: Path = field(converter=Path)
    append: bool | None = field(default=None, validator=fields.optional(boolean), kw_only=True)

    KIND = "file"

    def own(self, name: str) -> Mapping[str, Any]:
        return {"path": str(self.path), "append": self.append}


@frozen
class Pipe(Backend):
    """A FIFO at `path`, or the two ``path.in`` and ``path.out``; they must exist."""

    path: Path = field(converter=Path)

    KIND = "pipe"

    def own(self, name: str) -> Mapping[str, Any]:
        return {"path": str(self.path)}


@frozen(kw_only=True)
class Pty(Backend):
    """A pseudo-terminal; its name is in ``query-chardev``."""

    KIND = "pty"


@frozen(kw_only=True)
class Stdio(Backend):
    """QEMU's own standard input and output. `signal` lets Ctrl-C end QEMU."""

    signal: bool | None = field(default=None, validator=fields.optional(boolean))

    KIND = "stdio"

    def own(self, name: str) -> Mapping[str, Any]:
        return {"signal": self.signal}


@frozen(kw_only=True)
class Null(Backend):
    """Nowhere."""

    KIND = "null"


@frozen(kw_only=True)
class RingBuffer(Backend):
    """The last `size` bytes in QEMU's memory, for ``ringbuf-read``; a power of two."""

    size: int | None = field(default=None, converter=fields.to_size)

    KIND = "ringbuf"

    def check(self) -> None:
        if self.size is not None and (self.size <= 0 or self.size & (self.size - 1)):
            raise SpecError("size", "must be a power of two", self.size)

    def own(self, name: str) -> Mapping[str, Any]:
        return {"size": self.size}


@frozen(kw_only=True)
class _Stream(Backend):
    """What TCP and Unix sockets share.

    A server with `wait` keeps QEMU from starting until someone connects. A client with
    `reconnect` (seconds) tries again after its peer went away.
    """

    server: bool = field(default=False, validator=boolean)
    wait: bool = field(default=False, validator=boolean)
    telnet: bool = field(default=False, validator=boolean)
    websocket: bool = field(default=False, validator=boolean)
    reconnect: int | None = field(default=None, validator=fields.optional(fields.positive))

    KIND = "socket"

    def check(self) -> None:
        if self.telnet and self.websocket:
            raise SpecError("websocket", "cannot be combined with telnet", True)
        if self.websocket and not self.server:
            raise SpecError("websocket", "must be a server: QEMU is no websocket client", True)
        if self.server and self.reconnect is not None:
            raise SpecError("reconnect", "is for clients, not for a server", self.reconnect)
        if self.wait and not self.server:
            raise SpecError("wait", "is for servers, not for a client", True)

    def stream(self) -> dict[str, Any]:
        """The properties that do not depend on the kind of address."""
        return {
            "server": self.server,
            "wait": self.wait if self.server else None,
            "telnet": self.telnet or None,
            "websocket": self.websocket or None,
            "reconnect": self.reconnect,
        }


@frozen
class Unix(_Stream):
    """A Unix socket at `path`; `abstract` in Linux's own name space."""

    path: str = field(converter=str, validator=fields.text)
    abstract: bool | None = field(default=None, validator=fields.optional(boolean), kw_only=True)
    tight: bool | None = field(default=None, validator=fields.optional(boolean), kw_only=True)

    def check(self) -> None:
        _Stream.check(self)
        unix_path("path", self.path)
        if self.tight is not None and not self.abstract:
            raise SpecError("tight", "belongs to abstract sockets", self.tight)

    def own(self, name: str) -> Mapping[str, Any]:
        address = {"path": self.path, "abstract": self.abstract, "tight": self.tight}
        return {**address, **self.stream()}


@frozen
class Tcp(_Stream):
    """A TCP socket. A server takes the first free port up to `to`.

    `tls_creds` and `tls_authz` are ids of objects.
    """

    port: int = field(validator=port_number)
    host: str = field(default="127.0.0.1", validator=fields.text)
    to: int | None = field(default=None, validator=fields.optional(port_number), kw_only=True)
    ipv4: bool | None = field(default=None, validator=fields.optional(boolean), kw_only=True)
    ipv6: bool | None = field(default=None, validator=fields.optional(boolean), kw_only=True)
    nodelay: bool | None = field(default=None, validator=fields.optional(boolean), kw_only=True)
    tls_creds: str | None = field(
        default=None, validator=fields.optional(fields.name), kw_only=True
    )
    tls_authz: str | None = field(
        default=None, validator=fields.optional(fields.name), kw_only=True
    )

    def check(self) -> None:
        _Stream.check(self)
        if self.to is not None and not self.server:
            raise SpecError("to", "is for servers, not for a client", self.to)
        if self.tls_authz is not None and self.tls_creds is None:
            raise SpecError("tls_authz", "must come with tls_creds", self.tls_authz)

    def own(self, name: str) -> Mapping[str, Any]:
        return {
            "host": self.host,
            "port": self.port,
            "to": self.to,
            "ipv4": self.ipv4,
            "ipv6": self.ipv6,
            "nodelay": self.nodelay,
            "tls-creds": self.tls_creds,
            "tls-authz": self.tls_authz,
            **self.stream(),
        }


@frozen
class Udp(Backend):
    """UDP datagrams to `host` and `port`, from `localaddr` and `localport`."""

    port: int = field(validator=port_number)
    host: str = field(default="127.0.0.1", validator=fields.text)
    localaddr: str | None = field(
        default=None, validator=fields.optional(fields.text), kw_only=True
    )
    localport: int | None = field(
        default=None, validator=fields.optional(port_number), kw_only=True
    )
    ipv4: bool | None = field(default=None, validator=fields.optional(boolean), kw_only=True)
    ipv6: bool | None = field(default=None, validator=fields.optional(boolean), kw_only=True)

    KIND = "udp"

    def own(self, name: str) -> Mapping[str, Any]:
        return {
            "host": self.host,
            "port": self.port,
            "localaddr": self.localaddr,
            "localport": self.localport,
            "ipv4": self.ipv4,
            "ipv6": self.ipv6,
        }


@frozen
class HostSerial(Backend):
    """A serial port of the host, such as ``/dev/ttyS0``."""

    path: Path = field(converter=Path)

    KIND = "serial"

    def own(self, name: str) -> Mapping[str, Any]:
        return {"path": str(self.path)}


@frozen
class HostParallel(Backend):
    """A parallel port of the host, such as ``/dev/parport0``."""

    path: Path = field(converter=Path)

    KIND = "parallel"

    def own(self, name: str) -> Mapping[str, Any]:
        return {"path": str(self.path)}


@frozen
class SpiceChannel(Backend):
    """A channel of the SPICE client: "vdagent", "usbredir" or "smartcard"."""

    name: str = field(validator=fields.choice("vdagent", "usbredir", "smartcard"))

    KIND = "spicevmc"

    def own(self, name: str) -> Mapping[str, Any]:
        return {"name": self.name}


@frozen
class SpicePort(Backend):
    """A port that the SPICE client opens by its `name`, such as "org.spice.console.0"."""

    name: str = field(validator=fields.text)

    KIND = "spiceport"

    def own(self, name: str) -> Mapping[str, Any]:
        return {"name": self.name}


@frozen(kw_only=True)
class VdAgent(Backend):
    """QEMU's own peer of the SPICE agent in the guest: shares clipboard and mouse with VNC."""

    clipboard: bool | None = field(default=None, validator=fields.optional(boolean))
    mouse: bool | None = field(default=None, validator=fields.optional(boolean))

    KIND = "qemu-vdagent"

    def own(self, name: str) -> Mapping[str, Any]:
        return {"clipboard": self.clipboard, "mouse": self.mouse}


@frozen
class Chardev(Backend):
    """Any other back end of QEMU's by its name, with properties in QEMU's words."""

    backend: str = field(validator=fields.name)
    properties: Mapping[str, Any] = field(factory=dict, validator=fields.kind(Mapping))

    def own(self, name: str) -> Mapping[str, Any]:
        return {"backend": self.backend, **self.properties}
