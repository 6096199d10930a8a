"""Where the guest's screen is seen: VNC, SPICE, or another ``-display``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import present, unix_path
from pyvirt.disk.secret import Secret
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Need, TemporaryPath
from pyvirt.qemu.option import Late, Option
from pyvirt.qemu.part import At, Slot

boolean = fields.kind(bool)
port_number = fields.between(1, 65535)


def _websocket(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value is not True and value is not False:
        port_number(instance, field, value)


@frozen(kw_only=True)
class Shown:
    """What all displays share. They take no place and stay as long as QEMU runs.

    `properties` are given to QEMU as they are and win over what the fields say.
    """

    id: str | None = field(default=None, validator=fields.optional(fields.name))
    properties: Mapping[str, Any] = field(factory=dict, validator=fields.kind(Mapping))

    PREFIX: ClassVar[str] = "display"

    @property
    def prefix(self) -> str:
        """How generated names begin."""
        return self.PREFIX

    @property
    def slot(self) -> Slot:
        """No place."""
        return Slot("", unpluggable=False)


@frozen(kw_only=True)
class Vnc(Shown):
    """A VNC server: on a temporary Unix socket (the need ``<name>-socket``), at `path`, or TCP.

    `host` or `display` choose TCP: port 5900 + `display`, and with `to` the first free
    one up to there. `password` is asked of clients, "" for one that is set later, and None
    for none. VNC looks at 8 characters only. `websocket` is a TCP port of its own, or
    True for 5700 + `display`. `head` is the id of the card that is shown.
    """

    path: str | None = field(default=None)
    host: str | None = field(default=None, validator=fields.optional(fields.text))
    display: int | None = field(default=None, validator=fields.optional(fields.between(0, 59635)))
    to: int | None = field(default=None, validator=fields.optional(fields.between(0, 59635)))
    password: str | None = field(default=None, validator=fields.optional(fields.text), repr=False)
    websocket: bool | int = field(default=False, validator=_websocket)
    share: str | None = field(
        default=None,
        validator=fields.optional(fields.choice("allow-exclusive", "force-shared", "ignore")),
    )
    tls_creds: str | None = field(default=None, validator=fields.optional(fields.name))
    tls_authz: str | None = field(default=None, validator=fields.optional(fields.name))
    sasl: bool = field(default=False, validator=boolean)
    sasl_authz: str | None = field(default=None, validator=fields.optional(fields.name))
    lossy: bool | None = field(default=None, validator=fields.optional(boolean))
    non_adaptive: bool | None = field(default=None, validator=fields.optional(boolean))
    key_delay_ms: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 10000))
    )
    power_control: bool | None = field(default=None, validator=fields.optional(boolean))
    audiodev: str | None = field(default=None, validator=fields.optional(fields.name))
    head: str | None = field(default=None, validator=fields.optional(fields.name))

    PREFIX = "vnc"

    def __attrs_post_init__(self) -> None:
        self._check_address()
        if self.password is not None and len(self.password.encode()) > 8:
            raise SpecError("password", "must have at most 8 bytes: VNC ignores the rest", "…")
        if self.tls_authz is not None and self.tls_creds is None:
            raise SpecError("tls_authz", "must come with tls_creds", self.tls_authz)
        if self.sasl_authz is not None and not self.sasl:
            raise SpecError("sasl_authz", "must come with sasl", self.sasl_authz)

    def _check_address(self) -> None:
        if self.path is not None:
            unix_path("path", self.path)
            if self.tcp:
                raise SpecError("path", "cannot be combined with host or display", self.path)
        if not self.tcp and self.to is not None:
            raise SpecError("to", "must come with host or display", self.to)
        if not self.tcp and self.websocket is not False:
            raise SpecError("websocket", "must come with host or display", self.websocket)

    @property
    def tcp(self) -> bool:
        """Whether it listens on TCP."""
        return self.host is not None or self.display is not None

    def options(self, at: At) -> Iterator[Option | Need]:
        """``-vnc``, after the password's object."""
        if self.path is None and not self.tcp:
            yield TemporaryPath(f"{at.name}-socket", suffix=".sock")
        if self.password:
            yield from Secret(self.password).options(f"{at.name}-secret")
        yield Option("vnc", {"vnc": self._address(at), "id": at.name, **self._properties(at)})

    def _address(self, at: At) -> str | Late:
        if self.path is not None:
            return f"unix:{self.path}"
        if not self.tcp:
            return Late(f"{at.name}-socket", "unix:{}")
        host = "127.0.0.1" if self.host is None else self.host
        return f"{f'[{host}]' if ':' in host else host}:{self.display or 0}"

    def _properties(self, at: At) -> dict[str, Any]:
        given = {
            "to": self.to,
            "password-secret": f"{at.name}-secret" if self.password else None,
            "password": True if self.password == "" else None,
            "websocket": None if self.websocket is False else self.websocket,
            "share": self.share,
            "tls-creds": self.tls_creds,
            "tls-authz": self.tls_authz,
            "sasl": self.sasl or None,
            "sasl-authz": self.sasl_authz,
            "lossy": self.lossy,
            "non-adaptive": self.non_adaptive,
            "key-delay-ms": self.key_delay_ms,
            "power-control": self.power_control,
            "audiodev": self.audiodev,
            "display": self.head,
        }
        return {**present(given), **self.properties}


COMPRESSIONS = fields.choice("auto_glz", "auto_lz", "quic", "glz", "lz", "off")
WAN = fields.choice("auto", "never", "always")


@frozen(kw_only=True)
class Spice(Shown):
    """A SPICE server: on a temporary Unix socket (the need ``<name>-socket``), at `path`, or TCP.

    Without a `password` nobody is asked for one. `tls_port` needs the certificates in
    `x509_dir`. QEMU has one SPICE server.
    """

    path: str | None = field(default=None)
    port: int | None = field(default=None, validator=fields.optional(port_number))
    tls_port: int | None = field(default=None, validator=fields.optional(port_number))
    addr: str | None = field(default=None, validator=fields.optional(fields.text))
    password: str | None = field(default=None, validator=fields.optional(fields.text), repr=False)
    x509_dir: Path | None = field(default=None, converter=fields.to_path)
    tls_ciphers: str | None = field(default=None, validator=fields.optional(fields.text))
    sasl: bool | None = field(default=None, validator=fields.optional(boolean))
    image_compression: str | None = field(default=None, validator=fields.optional(COMPRESSIONS))
    jpeg_wan_compression: str | None = field(default=None, validator=fields.optional(WAN))
    zlib_glz_wan_compression: str | None = field(default=None, validator=fields.optional(WAN))
    streaming_video: str | None = field(
        default=None, validator=fields.optional(fields.choice("off", "all", "filter"))
    )
    disable_copy_paste: bool | None = field(default=None, validator=fields.optional(boolean))
    disable_agent_file_xfer: bool | None = field(default=None, validator=fields.optional(boolean))
    agent_mouse: bool | None = field(default=None, validator=fields.optional(boolean))
    playback_compression: bool | None = field(default=None, validator=fields.optional(boolean))
    seamless_migration: bool | None = field(default=None, validator=fields.optional(boolean))
    gl: bool | None = field(default=None, validator=fields.optional(boolean))
    rendernode: Path | None = field(default=None, converter=fields.to_path)

    PREFIX = "spice"

    def __attrs_post_init__(self) -> None:
        if self.path is not None:
            unix_path("path", self.path)
            if self.tcp:
                raise SpecError("path", "cannot be combined with port or tls_port", self.path)
        if self.addr is not None and not self.tcp:
            raise SpecError("addr", "must come with port or tls_port", self.addr)
        if self.tls_port is not None and self.x509_dir is None:
            raise SpecError("tls_port", "must come with x509_dir", self.tls_port)
        if self.gl and self.tcp:
            raise SpecError("gl", "works on a Unix socket only", True)

    @property
    def tcp(self) -> bool:
        """Whether it listens on TCP."""
        return self.port is not None or self.tls_port is not None

    def options(self, at: At) -> Iterator[Option | Need]:
        """``-spice``, after the password's object."""
        if self.path is None and not self.tcp:
            yield TemporaryPath(f"{at.name}-socket", suffix=".sock")
        if self.password is not None:
            yield from Secret(self.password).options(f"{at.name}-secret")
        given = {**self._address(at), **self._properties(at)}
        yield Option("spice", {**present(given), **self.properties})

    def _address(self, at: At) -> dict[str, Any]:
        if self.tcp:
            addr = self.addr or "127.0.0.1"
            return {"addr": addr, "port": self.port, "tls-port": self.tls_port}
        path = Late(f"{at.name}-socket") if self.path is None else self.path
        return {"unix": True, "addr": path}

    def _properties(self, at: At) -> dict[str, Any]:
        no_password = self.password is None and not self.sasl
        return {
            "password-secret": None if self.password is None else f"{at.name}-secret",
            "disable-ticketing": True if no_password else None,
            "x509-dir": None if self.x509_dir is None else str(self.x509_dir),
            "tls-ciphers": self.tls_ciphers,
            "sasl": self.sasl,
            "image-compression": self.image_compression,
            "jpeg-wan-compression": self.jpeg_wan_compression,
            "zlib-glz-wan-compression": self.zlib_glz_wan_compression,
            "streaming-video": self.streaming_video,
            "disable-copy-paste": self.disable_copy_paste,
            "disable-agent-file-xfer": self.disable_agent_file_xfer,
            "agent-mouse": self.agent_mouse,
            "playback-compression": self.playback_compression,
            "seamless-migration": self.seamless_migration,
            "gl": self.gl,
            "rendernode": None if self.rendernode is None else str(self.rendernode),
        }


@frozen
class Display(Shown):
    """Any ``-display`` by its type: none, gtk, sdl, curses, egl-headless, dbus, spice-app.

    `gl` is "on", "off", "core" or "es"; `rendernode` is the DRM device that draws.
    """

    type: str = field(default="none", validator=fields.name)
    gl: str | None = field(
        default=None,
        validator=fields.optional(fields.choice("on", "off", "core", "es")),
        kw_only=True,
    )
    rendernode: Path | None = field(default=None, converter=fields.to_path, kw_only=True)
    addr: str | None = field(default=None, validator=fields.optional(fields.text), kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.rendernode is not None and self.type not in {"egl-headless", "dbus"}:
            raise SpecError("rendernode", "belongs to egl-headless and dbus", str(self.rendernode))
        if self.addr is not None and self.type != "dbus":
            raise SpecError("addr", "belongs to dbus", self.addr)
        if self.type == "none" and self.gl not in {None, "off"}:
            raise SpecError("gl", "needs a display that draws: egl-headless is one", self.gl)

    def options(self, at: At) -> Iterator[Option | Need]:
        """``-display``."""
        given = {
            "type": self.type,
            "gl": self.gl,
            "rendernode": None if self.rendernode is None else str(self.rendernode),
            "addr": self.addr,
        }
        yield Option("display", {**present(given), **self.properties})
