"""Debian and its kin, made of packages."""

from __future__ import annotations

import re
from typing import Any

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.rootfs.rootfs import RootFS

_SUITE = re.compile(r"[a-z][a-z0-9.-]*")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*(:[a-z0-9]+)?")
_VARIANTS = ("extract", "custom", "essential", "apt", "minbase", "important", "standard")


def _is_suite(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not _SUITE.fullmatch(value):
        raise SpecError(field.name, 'must be the name of a suite such as "bookworm"', value)


def _are_packages(instance: Any, field: attrs.Attribute[Any], value: tuple[Any, ...]) -> None:
    for index, name in enumerate(value):
        if not isinstance(name, str) or not _PACKAGE.fullmatch(name):
            raise SpecError(f"{field.name}[{index}]", "must be the name of a package", name)


@frozen
class Debian(RootFS):
    """A Debian `suite` ("bookworm", "stable"), with `packages` besides, made by mmdebstrap.

    Packages come from the mirrors that apt is set up with on this host, checked against its
    keys. `variant` is in mmdebstrap's words: which packages there are at least; "minbase" is
    the smallest in which apt works. A system that boots needs "systemd-sysv" in `packages`.
    `components` are "main" unless said. `architecture` is Debian's name of one.
    """

    suite: str = field(validator=_is_suite)
    packages: tuple[str, ...] = field(
        default=(), converter=fields.to_tuple, validator=_are_packages
    )
    variant: str = field(default="minbase", kw_only=True, validator=fields.choice(*_VARIANTS))
    components: tuple[str, ...] = field(
        default=("main",), kw_only=True, converter=fields.to_tuple, validator=_are_packages
    )
    architecture: str | None = field(
        default=None, kw_only=True, validator=fields.optional(_is_suite)
    )
