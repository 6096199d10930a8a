"""MAC addresses: checked, and derived so that a guest meets the same card at every start."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import attrs

from pyvirt.errors import SpecError

#: The first three bytes of QEMU's own addresses: locally administered, unicast.
PREFIX = bytes((0x52, 0x54, 0x00))

_TEXT = re.compile(r"[0-9a-f]{2}(?:([:-])[0-9a-f]{2}(?:\1[0-9a-f]{2}){4})", re.IGNORECASE)


def parse(value: Any, field: str) -> str:
    """`value` in lower case with colons. Raises `SpecError` naming `field`.

    QEMU starts with a group address, but no guest's driver accepts one; and zeros mean
    "not set" to QEMU, which then numbers its cards in the order it meets them.
    """
    if not isinstance(value, str) or _TEXT.fullmatch(value) is None:
        raise SpecError(field, "must be six bytes such as '52:54:00:12:34:56'", value)
    octets = bytes.fromhex(value.replace(value[2], ""))
    if octets[0] & 1:
        raise SpecError(field, "must be the address of one card, not of a group", value)
    if not any(octets):
        raise SpecError(field, "must not be all zeros, which to QEMU means none", value)
    return octets.hex(":")


def derived(vm: str, card: str) -> str:
    """The address of `card` in the VM named `vm`: the same for the same names.

    The last three bytes are a digest, so about one pair in 16 million VMs shares one.
    """
    digest = hashlib.sha256(f"{vm}\0{card}".encode("utf-8", "surrogateescape")).digest()
    return (PREFIX + digest[:3]).hex(":")


def _convert(value: Any, field: attrs.Attribute[Any]) -> str | None:
    return None if value is None else parse(value, field.name)


# The attrs plugin of mypy takes only functions for converters, so a checker sees one.
if TYPE_CHECKING:

    def to_mac(value: str | None) -> str | None:
        """Converter of a field that holds an address; ``None`` stays ``None``."""

else:
    to_mac = attrs.Converter(_convert, takes_field=True)
