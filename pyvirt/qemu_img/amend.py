"""What may be changed in an image that is there: ``qemu-img amend``, in QEMU's own words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.disk.secret import Secret, to_secret
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu_img.options import Word

_COMPAT = ("v2", "v3", "0.10", "1.1")


def _passphrase() -> Any:
    return field(default=None, converter=to_secret, kw_only=True)


@frozen
class KeySlot:
    """A change of a LUKS passphrase: "active" sets `new`, "inactive" erases.

    Which slot: the number `slot`, or all that `old` opens. `iter_time` is in seconds.
    """

    state: str = field(validator=fields.choice("active", "inactive"))
    new: Secret | None = _passphrase()
    old: Secret | None = _passphrase()
    slot: int | None = field(
        default=None, validator=fields.optional(fields.between(0, 7)), kw_only=True
    )
    iter_time: float | None = field(
        default=None, validator=fields.optional(fields.positive), kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        if self.state == "active" and self.new is None:
            raise SpecError("new", "must be given to set a passphrase", None)
        if self.state == "inactive" and self.new is not None:
            raise SpecError("new", "is for state active", self.new)
        if self.state == "inactive" and self.old is None and self.slot is None:
            raise SpecError("slot", "or old must say which to erase", None)

    def words(self) -> Iterator[Word]:
        """Its options, without the prefix that they have in qcow2."""
        yield "state", self.state
        for word, value in (("new-secret", self.new), ("old-secret", self.old),
                            ("keyslot", self.slot)):  # fmt: skip
            if value is not None:
                yield word, value
        if self.iter_time is not None:
            yield "iter-time", max(1, round(self.iter_time * 1000))


@frozen
class AmendOptions:
    """What changes in an image; None stays as it is."""

    format: ClassVar[str]

    keys: KeySlot | None = field(
        default=None, validator=fields.optional(fields.kind(KeySlot)), kw_only=True
    )

    def words(self) -> Iterator[Word]:
        """The options in QEMU's words."""
        if self.keys is not None:
            yield from self.keys.words()


@frozen
class LuksAmend(AmendOptions):
    """Changes of a LUKS volume."""

    format: ClassVar[str] = "luks"


@frozen
class Qcow2Amend(AmendOptions):
    """Changes of a qcow2 image. Its size and its backing image have commands of their own."""

    format: ClassVar[str] = "qcow2"

    compat: str | None = field(
        default=None, validator=fields.optional(fields.choice(*_COMPAT)), kw_only=True
    )
    lazy_refcounts: bool | None = field(
        default=None, validator=fields.optional(fields.kind(bool)), kw_only=True
    )
    refcount_bits: int | None = field(
        default=None, validator=fields.optional(fields.choice(1, 2, 4, 8, 16, 32, 64)), kw_only=True
    )
    data_file: str | None = field(
        default=None, validator=fields.optional(fields.text), kw_only=True
    )
    data_file_raw: bool | None = field(
        default=None, validator=fields.optional(fields.kind(bool)), kw_only=True
    )

    def words(self) -> Iterator[Word]:
        for word in ("compat", "lazy_refcounts", "refcount_bits", "data_file", "data_file_raw"):
            if getattr(self, word) is not None:
                yield word, getattr(self, word)
        for word, value in super().words():
            yield f"encrypt.{word}", value


AMENDS: dict[str, type[AmendOptions]] = {kind.format: kind for kind in (Qcow2Amend, LuksAmend)}


def amendment(format: str, given: dict[str, Any]) -> AmendOptions:
    """The changes `given` of an image of `format`; `SpecError` naming a wrong one."""
    kind = AMENDS.get(format)
    if kind is None:
        raise SpecError("format", f"must be one of {', '.join(AMENDS)} to be amended", format)
    known = [each.alias for each in attrs.fields(kind)]
    for name, value in given.items():
        if name not in known:
            raise SpecError(name, f"cannot be amended in {format}, but {', '.join(known)}", value)
    if not given:
        raise SpecError("options", f"must name what to amend: {', '.join(known)}", given)
    return kind(**given)
