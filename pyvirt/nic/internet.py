"""Converters of fields that hold internet addresses and ports."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any

import attrs

from pyvirt.errors import SpecError


def _to(parse: Callable[[Any], Any], reason: str) -> attrs.Converter[Any, Any]:
    def convert(value: Any, field: attrs.Attribute[Any]) -> Any:
        if value is None:
            return None
        try:
            return parse(value)
        except ValueError:
            raise SpecError(field.name, reason, value) from None

    return attrs.Converter(convert, takes_field=True)


def _network4(value: Any) -> IPv4Network:
    net = IPv4Network(value, strict=False)
    if not 4 <= net.prefixlen <= 30:  # QEMU wants 4 to 32; three hosts need more than two bits.
        raise ValueError(value)
    return net


def _network6(value: Any) -> IPv6Network:
    net = IPv6Network(value, strict=False)
    if not 1 <= net.prefixlen <= 126:  # QEMU takes 0 for "not given".
        raise ValueError(value)
    return net


# The attrs plugin of mypy takes only functions for converters, so a checker sees these.
if TYPE_CHECKING:

    def to_ipv4(value: IPv4Address | str | None) -> Any:
        """Converter of an IPv4 address; ``None`` stays ``None``."""

    def to_ipv6(value: IPv6Address | str | None) -> Any:
        """Converter of an IPv6 address; ``None`` stays ``None``."""

    def to_network4(value: IPv4Network | str | None) -> Any:
        """Converter of an IPv4 network; ``None`` stays ``None``."""

    def to_network6(value: IPv6Network | str | None) -> Any:
        """Converter of an IPv6 network; ``None`` stays ``None``."""

else:
    to_ipv4 = _to(IPv4Address, "must be an IPv4 address")
    to_ipv6 = _to(IPv6Address, "must be an IPv6 address")
    to_network4 = _to(_network4, "must be an IPv4 network such as '10.0.2.0/24', /4 to /30")
    to_network6 = _to(_network6, "must be an IPv6 network such as 'fec0::/64', /1 to /126")
