"""Image formats: what lies between the bytes of a node and the disk they hold."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeAlias

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.disk.local import to_node
from pyvirt.disk.node import BlockNode
from pyvirt.disk.remote import URL_SCHEMES
from pyvirt.disk.secret import Secret, to_secret
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.option import NULL

#: Formats whose images may lie over another image.
WITH_BACKING = ("qcow2", "qcow", "qed", "vmdk")

#: Formats that may be encrypted, with the ``format`` of their ``encrypt``.
ENCRYPTION = {"qcow2": "luks", "qcow": "aes"}

#: Drivers that QEMU opens for reading only.
READ_ONLY = frozenset({"bochs", "cloop", "dmg", "host_cdrom", *URL_SCHEMES})


class Backing(Enum):
    """Where the backing node is named, when the description does not."""

    FROM_IMAGE = "from the image"


FROM_IMAGE = Backing.FROM_IMAGE
_flag = fields.optional(fields.kind(bool))
BackingNode: TypeAlias = BlockNode | Backing | None


def to_backing(value: Any) -> BackingNode:
    """Converter: a name alone is refused, since it does not say the format."""
    if value is None or isinstance(value, BlockNode | Backing):
        return value
    raise SpecError("backing", "must say its format, as in Qcow2('base.qcow2')", value)


@frozen
class Format(BlockNode):
    """An image of format `driver` (raw, qcow2, vmdk, vdi, vpc, vhdx, …) in `file`.

    `backing` is the node below: by default the one that the image names, None for none.
    `key` opens an encrypted image. `options` are more of QEMU's properties of the driver.
    """

    driver: str = field(validator=fields.name)
    file: BlockNode = field(converter=to_node)
    backing: BackingNode = field(default=FROM_IMAGE, converter=to_backing, kw_only=True)
    key: Secret | None = field(default=None, converter=to_secret, kw_only=True)
    options: Mapping[str, Any] = field(factory=dict, validator=fields.kind(Mapping), kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.backing is not FROM_IMAGE and self.driver not in WITH_BACKING:
            raise SpecError("backing", f"is for {', '.join(WITH_BACKING)}", self.backing)
        if self.driver == "luks" and self.key is None:
            raise SpecError("key", "must be given for luks", None)
        if self.key is not None and self.driver not in ("luks", *ENCRYPTION):
            raise SpecError("key", "is for luks, qcow2 and qcow", self.key)

    @property
    def properties(self) -> dict[str, Any]:
        return {"file": self.file, **_backing(self.backing), **self._key(), **self.options}

    def _key(self) -> dict[str, Any]:
        if self.key is None:
            return {}
        if self.driver == "luks":
            return {"key-secret": self.key}
        return {"encrypt": {"format": ENCRYPTION[self.driver], "key-secret": self.key}}


def _backing(backing: BackingNode) -> dict[str, Any]:
    if backing is FROM_IMAGE:
        return {}
    return {"backing": NULL if backing is None else backing}


def _multiple_of_sector(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value % 512:
        raise SpecError(field.name, "must be a multiple of 512", value)


@frozen
class Raw(BlockNode):
    """Plain bytes, or a window of `size` bytes at `offset` in a larger file."""

    file: BlockNode = field(converter=to_node)
    offset: int | None = field(
        default=None,
        converter=fields.to_size,
        validator=fields.optional(fields.between(0, 2**63 - 1)),
        kw_only=True,
    )
    size: int | None = field(
        default=None,
        converter=fields.to_size,
        validator=fields.optional([fields.between(0, 2**63 - 1), _multiple_of_sector]),
        kw_only=True,
    )

    @property
    def driver(self) -> str:
        return "raw"


@frozen
class Luks(Format):
    """A LUKS volume: ``Luks("secret.img", "passphrase")``, or the Path of the key's file."""

    driver: str = field(default="luks", init=False)
    file: BlockNode = field(converter=to_node)
    key: Secret = field(converter=to_secret)
    backing: BackingNode = field(default=FROM_IMAGE, init=False)


@frozen
class Qcow2(BlockNode):
    """A qcow2 image with all that QEMU lets one choose at opening.

    `backing` and `key` as in `Format`. `data_file` replaces the external data file that the
    image names. Cache sizes are in bytes, `cache_clean_interval` in seconds.
    """

    file: BlockNode = field(converter=to_node)
    backing: BackingNode = field(default=FROM_IMAGE, converter=to_backing, kw_only=True)
    key: Secret | None = field(default=None, converter=to_secret, kw_only=True)
    data_file: BlockNode | None = field(
        default=None, converter=attrs.converters.optional(to_node), kw_only=True
    )
    lazy_refcounts: bool | None = field(default=None, validator=_flag, kw_only=True)
    pass_discard_request: bool | None = field(default=None, validator=_flag, kw_only=True)
    pass_discard_snapshot: bool | None = field(default=None, validator=_flag, kw_only=True)
    pass_discard_other: bool | None = field(default=None, validator=_flag, kw_only=True)
    overlap_check: str | None = field(
        default=None,
        validator=fields.optional(fields.choice("none", "constant", "cached", "all")),
        kw_only=True,
    )
    cache_size: int | None = field(default=None, converter=fields.to_size, kw_only=True)
    l2_cache_size: int | None = field(default=None, converter=fields.to_size, kw_only=True)
    l2_cache_entry_size: int | None = field(default=None, converter=fields.to_size, kw_only=True)
    refcount_cache_size: int | None = field(default=None, converter=fields.to_size, kw_only=True)
    cache_clean_interval: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 2**32 - 1)), kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        if None not in (self.cache_size, self.l2_cache_size, self.refcount_cache_size):
            reason = "may not be set with both l2_cache_size and refcount_cache_size"
            raise SpecError("cache_size", reason, self.cache_size)
        for part in ("l2_cache_size", "refcount_cache_size"):
            size = getattr(self, part)
            if None not in (size, self.cache_size) and size > self.cache_size:
                raise SpecError(part, f"may not exceed cache_size ({self.cache_size})", size)

    @property
    def driver(self) -> str:
        return "qcow2"

    @property
    def properties(self) -> dict[str, Any]:
        plain = super().properties
        plain.pop("backing", None)
        key = plain.pop("key", None)
        encrypt = {} if key is None else {"encrypt": {"format": "luks", "key-secret": key}}
        return {"file": plain.pop("file"), **_backing(self.backing), **encrypt, **plain}
