"""Nodes whose data is on another machine, each in the words of QEMU's driver."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.disk.node import BlockNode
from pyvirt.disk.secret import Secret, to_secret
from pyvirt.errors import SpecError
from pyvirt.fields import frozen

URL_SCHEMES = ("http", "https", "ftp", "ftps")

_HOST_KEY = re.compile(r"known_hosts|none|(md5|sha1|sha256):[0-9A-Fa-f:]+")
_text = fields.optional(fields.text)
_port = fields.between(1, 65535)
_natural = fields.optional(fields.between(0, 2**63 - 1))
_seconds = fields.optional(fields.between(0, 2**32 - 1))


def _inet(host: str, port: int) -> dict[str, Any]:
    return {"host": host, "port": str(port)}


@frozen
class Nbd(BlockNode):
    """An export of an NBD server at `host` and `port`, or at the Unix socket `path`.

    `tls_creds` is the id of a ``tls-creds-*`` object. For `reconnect_delay` seconds a
    broken connection is repaired before requests fail.
    """

    host: str | None = field(default=None, validator=_text)
    port: int = field(default=10809, validator=_port)
    path: str | None = field(default=None, validator=_text, kw_only=True)
    export: str | None = field(default=None, validator=_text, kw_only=True)
    tls_creds: str | None = field(
        default=None, validator=fields.optional(fields.name), kw_only=True
    )
    tls_hostname: str | None = field(default=None, validator=_text, kw_only=True)
    reconnect_delay: int | None = field(default=None, validator=_seconds, kw_only=True)
    open_timeout: int | None = field(default=None, validator=_seconds, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if (self.host is None) == (self.path is None):
            raise SpecError("host", "must be given, or path, and not both", self.host)

    @property
    def driver(self) -> str:
        return "nbd"

    @property
    def properties(self) -> dict[str, Any]:
        plain = super().properties
        for word in ("host", "port", "path"):
            plain.pop(word, None)
        if self.host is None:
            return {"server": {"type": "unix", "path": self.path}, **plain}
        return {"server": {"type": "inet", **_inet(self.host, self.port)}, **plain}


def _url(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    fields.text(instance, field, value)
    if value.partition("://")[0] not in URL_SCHEMES:
        raise SpecError(field.name, f"must begin with {', '.join(URL_SCHEMES)} and ://", value)


@frozen
class Url(BlockNode):
    """A file on an http, https, ftp or ftps server; it can only be read.

    `readahead` is in bytes, `timeout` in seconds. `sslverify` is for https and ftps, `cookie`
    (one line of them, kept off the command line) for http and https.
    """

    url: str = field(validator=_url)
    readahead: int | None = field(
        default=None, converter=fields.to_size, validator=_natural, kw_only=True
    )
    timeout: int | None = field(default=None, validator=_seconds, kw_only=True)
    username: str | None = field(default=None, validator=_text, kw_only=True)
    password: Secret | None = field(default=None, converter=to_secret, kw_only=True)
    proxy_username: str | None = field(default=None, validator=_text, kw_only=True)
    proxy_password: Secret | None = field(default=None, converter=to_secret, kw_only=True)
    cookie: Secret | None = field(default=None, converter=to_secret, kw_only=True)
    sslverify: bool | None = field(
        default=None, validator=fields.optional(fields.kind(bool)), kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        if self.sslverify is not None and self.driver not in ("https", "ftps"):
            raise SpecError("sslverify", "is for https and ftps", self.sslverify)
        if self.cookie is not None and self.driver not in ("http", "https"):
            raise SpecError("cookie", "is for http and https", self.cookie)

    @property
    def driver(self) -> str:
        return self.url.partition("://")[0]

    @property
    def properties(self) -> dict[str, Any]:
        return _secrets(super().properties, "password", "proxy-password", "cookie")


def _secrets(properties: dict[str, Any], *words: str) -> dict[str, Any]:
    """`properties` with each of `words` under the name QEMU has for a secret's id."""
    return {f"{word}-secret" if word in words else word: v for word, v in properties.items()}


@frozen
class Ssh(BlockNode):
    """A file on an SSH server, as `user` (default: this user), with this user's keys.

    `host_key_check` is "known_hosts" (QEMU's default), "none", or "md5:…", "sha1:…",
    "sha256:…" with the fingerprint of the server's key in hexadecimal.
    """

    host: str = field(validator=fields.text)
    path: str = field(validator=fields.text)
    port: int = field(default=22, validator=_port, kw_only=True)
    user: str | None = field(default=None, validator=_text, kw_only=True)
    host_key_check: str | None = field(default=None, kw_only=True)

    @host_key_check.validator
    def _check(self, field: attrs.Attribute[Any], value: Any) -> None:
        if value is not None and not _HOST_KEY.fullmatch(str(value)):
            raise SpecError(field.name, "must be known_hosts, none or a fingerprint", value)

    @property
    def driver(self) -> str:
        return "ssh"

    @property
    def properties(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"server": _inet(self.host, self.port), "path": self.path}
        if self.user is not None:
            plain["user"] = self.user
        if self.host_key_check is not None:
            plain["host-key-check"] = self._host_key(self.host_key_check)
        return plain

    @staticmethod
    def _host_key(check: str) -> dict[str, Any]:
        kind, _, fingerprint = check.partition(":")
        if not fingerprint:
            return {"mode": kind}
        return {"mode": "hash", "type": kind, "hash": fingerprint}


@frozen
class Nfs(BlockNode):
    """A file of an NFS server, reached from QEMU itself without a mount.

    `user` and `group` are numeric ids. `readahead_size` and `page_cache_size` are bytes.
    """

    host: str = field(validator=fields.text)
    path: str = field(validator=fields.text)
    user: int | None = field(default=None, validator=_natural, kw_only=True)
    group: int | None = field(default=None, validator=_natural, kw_only=True)
    tcp_syn_count: int | None = field(default=None, validator=_natural, kw_only=True)
    readahead_size: int | None = field(
        default=None, converter=fields.to_size, validator=_natural, kw_only=True
    )
    page_cache_size: int | None = field(
        default=None, converter=fields.to_size, validator=_natural, kw_only=True
    )

    @property
    def driver(self) -> str:
        return "nfs"

    @property
    def properties(self) -> dict[str, Any]:
        plain = super().properties
        return {"server": {"type": "inet", "host": plain.pop("host")}, **plain}


@frozen
class Iscsi(BlockNode):
    """A LUN of the iSCSI target `target` at `portal` ("10.0.0.1:3260")."""

    portal: str = field(validator=fields.text)
    target: str = field(validator=fields.text)
    lun: int = field(default=0, validator=fields.between(0, 2**63 - 1))
    transport: str = field(default="tcp", validator=fields.choice("tcp", "iser"), kw_only=True)
    user: str | None = field(default=None, validator=_text, kw_only=True)
    password: Secret | None = field(default=None, converter=to_secret, kw_only=True)
    initiator_name: str | None = field(default=None, validator=_text, kw_only=True)
    header_digest: str | None = field(
        default=None,
        validator=fields.optional(fields.choice("crc32c", "none", "crc32c-none", "none-crc32c")),
        kw_only=True,
    )
    timeout: int | None = field(default=None, validator=_seconds, kw_only=True)

    @property
    def driver(self) -> str:
        return "iscsi"

    @property
    def properties(self) -> dict[str, Any]:
        return _secrets(super().properties, "password")


@frozen
class Rbd(BlockNode):
    """An image of a Ceph pool, with the monitors of `conf` or those of `servers` ("host:port").

    `key` is the user's CephX key in base64.
    """

    pool: str = field(validator=fields.text)
    image: str = field(validator=fields.text)
    namespace: str | None = field(default=None, validator=_text, kw_only=True)
    snapshot: str | None = field(default=None, validator=_text, kw_only=True)
    conf: str | None = field(default=None, validator=_text, kw_only=True)
    user: str | None = field(default=None, validator=_text, kw_only=True)
    key: Secret | None = field(default=None, converter=to_secret, kw_only=True)
    servers: tuple[str, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.text), kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        for server in self.servers:
            host_port("servers", server, 6789)

    @property
    def driver(self) -> str:
        return "rbd"

    @property
    def properties(self) -> dict[str, Any]:
        plain = _secrets(super().properties, "key")
        servers = plain.pop("servers")
        if servers:
            plain["server"] = [_inet(*host_port("servers", server, 6789)) for server in servers]
        return plain


@frozen
class Gluster(BlockNode):
    """A file of a Gluster volume; `servers` are "host", "host:port" or "/path/of/a/socket"."""

    volume: str = field(validator=fields.text)
    path: str = field(validator=fields.text)
    servers: tuple[str, ...] = field(converter=fields.to_tuple, validator=fields.each(fields.text))
    debug: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 9)), kw_only=True
    )
    logfile: str | None = field(default=None, validator=_text, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not self.servers:
            raise SpecError("servers", "must name at least one", self.servers)
        for server in self.servers:
            self._address(server)

    @property
    def driver(self) -> str:
        return "gluster"

    @property
    def properties(self) -> dict[str, Any]:
        plain = super().properties
        return {"server": [self._address(server) for server in plain.pop("servers")], **plain}

    @staticmethod
    def _address(server: str) -> Mapping[str, Any]:
        if server.startswith("/"):
            return {"type": "unix", "path": server}
        return {"type": "inet", **_inet(*host_port("servers", server, 24007))}


def host_port(field: str, address: str, default: int) -> tuple[str, int]:
    """Host and port of "host", "host:port" or "[v6]:port". Raises `SpecError` naming `field`."""
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, str(default)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise SpecError(field, "must be host or host:port", address)
    return host, int(port)
