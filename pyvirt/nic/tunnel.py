"""Networks that reach other hosts without an interface of this one: L2TPv3 and VDE."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.nic.backend import Backend, Wire
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option

_word = fields.optional(fields.between(0, 2**32 - 1))
_cookie = fields.optional(fields.between(0, 2**64 - 1))
_port = fields.optional(fields.between(1, 65535))
_flag = fields.optional(fields.kind(bool))


@frozen(kw_only=True)
class L2tpv3(Backend):
    """An L2TPv3 pseudowire (RFC 3931) from `src` to `dst`, over IP or `udp`."""

    src: str = field(validator=fields.text)
    dst: str = field(validator=fields.text)
    txsession: int = field(validator=fields.between(0, 2**32 - 1))
    rxsession: int | None = field(default=None, validator=_word)
    udp: bool | None = field(default=None, validator=_flag)
    srcport: int | None = field(default=None, validator=_port)
    dstport: int | None = field(default=None, validator=_port)
    ipv6: bool | None = field(default=None, validator=_flag)
    txcookie: int | None = field(default=None, validator=_cookie)
    rxcookie: int | None = field(default=None, validator=_cookie)
    cookie64: bool | None = field(default=None, validator=_flag)
    counter: bool | None = field(default=None, validator=_flag)
    pincounter: bool | None = field(default=None, validator=_flag)
    offset: int | None = field(default=None, validator=_word)

    def __attrs_post_init__(self) -> None:
        if self.udp and (self.srcport is None or self.dstport is None):
            raise SpecError("srcport", "and dstport are needed for udp", self.srcport)
        if not self.udp and (self.srcport is not None or self.dstport is not None):
            raise SpecError("udp", "must be on for srcport and dstport", self.udp)
        if (self.txcookie is None) != (self.rxcookie is None):
            raise SpecError("txcookie", "and rxcookie go together, or neither", self.txcookie)

    def options(self, wire: Wire) -> Iterator[Option | Need]:
        mine = [item.name for item in attrs.fields(L2tpv3) if item.name != "properties"]
        given = {name: getattr(self, name) for name in mine}
        for name in ("srcport", "dstport"):
            given[name] = None if given[name] is None else str(given[name])
        yield self.netdev("l2tpv3", wire, **given)


@frozen(kw_only=True)
class Vde(Backend):
    """A port of a VDE switch whose control socket is `sock`, where QEMU was built with it."""

    sock: Path | None = field(default=None, converter=fields.to_path)
    port: int | None = field(default=None, validator=fields.optional(fields.between(0, 65535)))
    group: str | None = field(default=None, validator=fields.optional(fields.text))
    mode: int | None = field(default=None, validator=fields.optional(fields.between(0, 0o777)))

    def options(self, wire: Wire) -> Iterator[Option | Need]:
        sock = None if self.sock is None else str(self.sock)
        yield self.netdev(
            "vde", wire, sock=sock, port=self.port, group=self.group, mode=self.mode
        )
