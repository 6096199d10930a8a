"""What may be chosen when an image is made: a class for each format, in QEMU's own words.

Every creation option of QEMU 7.2 has its field, but for ``size``, which every image has, and
``encryption``, QEMU's deprecated spelling of ``encrypt.format=aes``. A combination that QEMU
refuses is refused at birth, with its reason. None leaves the choice to QEMU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import attrs
from attrs import field

from pyvirt import fields
from pyvirt.disk.filename import filename, to_filename
from pyvirt.disk.secret import Secret, to_secret
from pyvirt.errors import SpecError
from pyvirt.fields import frozen

#: A word for ``-o``, and its value; a `Secret` is named once something holds it.
Word = tuple[str, Any]

_WORD = "word"


def _choice(*allowed: str) -> Any:
    return field(default=None, validator=fields.optional(fields.choice(*allowed)), kw_only=True)


def _flag() -> Any:
    return field(default=None, validator=fields.optional(fields.kind(bool)), kw_only=True)


def _power_of_two(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
    if value & (value - 1):
        raise SpecError(field.name, "must be a power of two", value)


def _multiple(of: int) -> fields.Validator:
    def check(instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
        if value % of:
            raise SpecError(field.name, f"must be a multiple of {of}", value)

    return check


def _size(low: int, high: int, *more: fields.Validator) -> Any:
    return field(
        default=None,
        converter=fields.to_size,
        validator=fields.optional([fields.between(low, high), *more]),
        kw_only=True,
    )


def _number(low: int, high: int, *more: fields.Validator) -> Any:
    checks = fields.optional([fields.between(low, high), *more])
    return field(default=None, validator=checks, kw_only=True)


def _word(word: str | None = None) -> Any:
    """Free text; `word` where QEMU's name is none in Python."""
    metadata = {_WORD: word} if word else {}
    return field(
        default=None, validator=fields.optional(fields.text), kw_only=True, metadata=metadata
    )


def _words(self: Any) -> Iterator[Word]:
    """The fields that are set, each under QEMU's name."""
    for each in attrs.fields(type(self)):
        value = getattr(self, each.name)
        if value is not None and each.init:
            yield each.metadata.get(_WORD, each.name), value


@frozen
class Encrypt:
    """How an image is encrypted: the passphrase, and what QEMU else chooses itself.

    `iter_time` is how long (in seconds) this machine shall need to try one passphrase. The
    format "aes" is weak, takes nothing but a passphrase, and is for other programs' sake.
    """

    key: Secret = field(converter=to_secret, metadata={_WORD: "key-secret"})
    format: str = field(default="luks", validator=fields.choice("luks", "aes"), kw_only=True)
    cipher_alg: str | None = _word("cipher-alg")
    cipher_mode: str | None = _word("cipher-mode")
    ivgen_alg: str | None = _word("ivgen-alg")
    ivgen_hash_alg: str | None = _word("ivgen-hash-alg")
    hash_alg: str | None = _word("hash-alg")
    iter_time: float | None = field(
        default=None,
        validator=fields.optional(fields.positive),
        kw_only=True,
        metadata={_WORD: "iter-time"},
    )

    def __attrs_post_init__(self) -> None:
        if self.key is None:
            raise SpecError("key", "must be given", None)
        for each in attrs.fields(type(self)):
            value = getattr(self, each.name)
            if self.format == "aes" and each.name not in ("key", "format") and value is not None:
                raise SpecError(each.name, "is for luks", value)

    def words(self) -> Iterator[Word]:
        """Its options, without the prefix that they have in qcow2 and qcow."""
        for word, value in _words(self):
            if word != "format":
                yield word, max(1, round(value * 1000)) if word == "iter-time" else value


def _convert_encrypt(value: Any, field: attrs.Attribute[Any]) -> Encrypt | None:
    if value is None or isinstance(value, Encrypt):
        return value
    try:
        return Encrypt(value)
    except SpecError as error:
        raise SpecError(field.name, error.reason, error.value) from None


if TYPE_CHECKING:  # mypy knows converters only as plain functions.

    def to_encrypt(value: str | os.PathLike[str] | Secret | Encrypt | None) -> Encrypt | None:
        """Converter of an encryption: a passphrase alone leaves the rest to QEMU."""

else:
    to_encrypt = attrs.Converter(_convert_encrypt, takes_field=True)


def _encrypt(*formats: str) -> Any:
    def check(instance: Any, field: attrs.Attribute[Any], value: Encrypt) -> None:
        if value.format not in formats:
            raise SpecError(field.name, f"must have the format {' or '.join(formats)}", value)

    return field(
        default=None, converter=to_encrypt, validator=fields.optional(check), kw_only=True
    )


@frozen
class CreateOptions:
    """What every image can be given: how its file is kept.

    `preallocation` sets space aside: "falloc" reserves it, "full" writes it. `nocow` turns
    copy-on-write off on btrfs, `extent_size_hint` (bytes) is for XFS.
    """

    format: ClassVar[str]
    #: Whether an image of this format can lie over another.
    overlays: ClassVar[bool] = False

    preallocation: str | None = _choice("off", "falloc", "full")
    nocow: bool | None = _flag()
    extent_size_hint: int | str | None = _size(0, 2**32 - 1)

    def words(self) -> Iterator[Word]:
        """The options in QEMU's words; values are bool, int, str or `Secret`."""
        yield from _words(self)

    def check(self, size: int | None, backing: str | None) -> None:
        """Refuse what does not go with an image of `size` bytes over `backing`."""
        if backing is not None and not self.overlays:
            raise SpecError("backing", f"is not for {self.format}", backing)

    def files(self, path: str) -> tuple[str, ...]:
        """What else than `path` holds the image, by the names that the image will record."""
        return ()

    @property
    def scattered(self) -> bool:
        """Whether the image is several files whose names are made from its own."""
        return False


@frozen
class RawOptions(CreateOptions):
    """Plain bytes."""

    format: ClassVar[str] = "raw"


@frozen
class Qcow2Options(CreateOptions):
    """A qcow2 image. `encrypt` is a passphrase, or an `Encrypt` with all there is to choose.

    `data_file` names a file for the guest's data beside the metadata; with `data_file_raw`
    that file alone is a raw image. `compat` is the version: "v2" (0.10) or "v3" (1.1).
    """

    format: ClassVar[str] = "qcow2"
    overlays: ClassVar[bool] = True

    preallocation: str | None = _choice("off", "metadata", "falloc", "full")
    cluster_size: int | str | None = _size(512, 2 << 20, _power_of_two)
    compat: str | None = _choice("v2", "v3", "0.10", "1.1")
    compression_type: str | None = _choice("zlib", "zstd")
    extended_l2: bool | None = _flag()
    lazy_refcounts: bool | None = _flag()
    refcount_bits: int | None = _number(1, 64, _power_of_two)
    data_file: str | None = field(
        default=None,
        converter=attrs.converters.optional(to_filename),
        validator=fields.optional(filename),
        kw_only=True,
    )
    data_file_raw: bool | None = _flag()
    encrypt: Encrypt | None = _encrypt("luks", "aes")

    def __attrs_post_init__(self) -> None:
        self._check_version()
        if self.data_file_raw and self.data_file is None:
            raise SpecError("data_file_raw", "needs data_file", True)
        if self.extended_l2 and self.cluster_size is not None and _bytes(self.cluster_size) < 16384:
            raise SpecError("cluster_size", "must be at least 16K with extended_l2",
                            self.cluster_size)  # fmt: skip

    def _check_version(self) -> None:
        if self.compat not in ("v2", "0.10"):
            return
        wants = {
            "lazy_refcounts": self.lazy_refcounts,
            "extended_l2": self.extended_l2,
            "data_file": self.data_file,
            "refcount_bits": self.refcount_bits not in (None, 16) and self.refcount_bits,
            "compression_type": self.compression_type == "zstd" and "zstd",
        }
        for name, value in wants.items():
            if value:
                raise SpecError(name, "needs compat v3", value)

    def check(self, size: int | None, backing: str | None) -> None:
        super().check(size, backing)
        if backing is None:
            return
        if self.data_file_raw:
            raise SpecError("data_file_raw", "does not go with a backing image", True)
        if self.preallocation not in (None, "off") and not self.extended_l2:
            raise SpecError(
                "preallocation",
                "goes with a backing image only if extended_l2 is on",
                self.preallocation,
            )

    def words(self) -> Iterator[Word]:
        for word, value in _words(self):
            if word != "encrypt":
                yield word, value
        yield from _inside(self.encrypt)

    def files(self, path: str) -> tuple[str, ...]:
        return () if self.data_file is None else (self.data_file,)


@frozen
class QcowOptions(CreateOptions):
    """An image of qcow, the first version. `encrypt` is ``Encrypt(passphrase, format="aes")``."""

    format: ClassVar[str] = "qcow"
    overlays: ClassVar[bool] = True

    encrypt: Encrypt | None = _encrypt("aes")

    def words(self) -> Iterator[Word]:
        for word, value in _words(self):
            if word != "encrypt":
                yield word, value
        yield from _inside(self.encrypt)


@frozen
class QedOptions(CreateOptions):
    """A QED image. `table_size` is the length of its tables in clusters."""

    format: ClassVar[str] = "qed"
    overlays: ClassVar[bool] = True

    cluster_size: int | str | None = _size(4096, 64 << 20, _power_of_two)
    table_size: int | None = _number(1, 16, _power_of_two)


@frozen
class VmdkOptions(CreateOptions):
    """A VMDK image. All but monolithicSparse and streamOptimized are several files."""

    format: ClassVar[str] = "vmdk"
    overlays: ClassVar[bool] = True

    adapter_type: str | None = _choice("ide", "lsilogic", "buslogic", "legacyESX")
    subformat: str | None = _choice(
        "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
        "streamOptimized",
    )  # fmt: skip
    compat6: bool | None = _flag()
    hwversion: str | None = _word()
    toolsversion: str | None = _word()
    zeroed_grain: bool | None = _flag()

    def __attrs_post_init__(self) -> None:
        if self.compat6 and self.hwversion is not None:
            raise SpecError("hwversion", "does not go with compat6", self.hwversion)
        if self.zeroed_grain and self._flat:
            raise SpecError("zeroed_grain", f"is not for {self.subformat}", True)

    @property
    def _flat(self) -> bool:
        return (self.subformat or "").endswith("Flat")

    def check(self, size: int | None, backing: str | None) -> None:
        super().check(size, backing)
        if backing is not None and self._flat:
            raise SpecError("backing", f"is not for {self.subformat}", backing)

    @property
    def scattered(self) -> bool:
        return self._flat or self.subformat == "twoGbMaxExtentSparse"


@frozen
class VdiOptions(CreateOptions):
    """A VDI image; a `static` one has all its blocks from the beginning."""

    format: ClassVar[str] = "vdi"

    static: bool | None = _flag()


@frozen
class VpcOptions(CreateOptions):
    """A VHD image. Without `force_size`, its size is rounded to cylinders, heads, sectors."""

    format: ClassVar[str] = "vpc"

    subformat: str | None = _choice("dynamic", "fixed")
    force_size: bool | None = _flag()


@frozen
class VhdxOptions(CreateOptions):
    """A VHDX image. `block_size` 0 lets QEMU choose by the size of the image."""

    format: ClassVar[str] = "vhdx"

    subformat: str | None = _choice("dynamic", "fixed")
    block_size: int | str | None = _size(0, 256 << 20, _multiple(1 << 20))
    log_size: int | str | None = _size(1 << 20, 2**32 - 1, _multiple(1 << 20))
    block_state_zero: bool | None = _flag()


@frozen
class ParallelsOptions(CreateOptions):
    """A Parallels image."""

    format: ClassVar[str] = "parallels"

    cluster_size: int | str | None = _size(512, 2**31, _multiple(512))


@frozen
class LuksOptions(CreateOptions):
    """A LUKS volume. `encrypt` is its passphrase, or an `Encrypt` with all there is to choose."""

    format: ClassVar[str] = "luks"

    encrypt: Encrypt | None = _encrypt("luks")

    def __attrs_post_init__(self) -> None:
        if self.encrypt is None:
            raise SpecError("encrypt", "must be given for luks: the passphrase", None)

    def words(self) -> Iterator[Word]:
        for word, value in _words(self):
            if word != "encrypt":
                yield word, value
        if self.encrypt is not None:
            yield from self.encrypt.words()


#: The formats that QEMU writes → the class of their options.
FORMATS: Mapping[str, type[CreateOptions]] = {
    kind.format: kind
    for kind in (
        RawOptions, Qcow2Options, QcowOptions, QedOptions, VmdkOptions, VdiOptions, VpcOptions,
        VhdxOptions, ParallelsOptions, LuksOptions,
    )
}  # fmt: skip


def options(format: str | CreateOptions, given: Mapping[str, Any]) -> CreateOptions:
    """The options of `format` with the fields `given`; `SpecError` naming a wrong one."""
    if isinstance(format, CreateOptions):
        if given:
            raise SpecError(next(iter(given)), "belongs into the options of the format",
                            next(iter(given.values())))  # fmt: skip
        return format
    kind = FORMATS.get(format)
    if kind is None:
        raise SpecError("format", f"must be one of {', '.join(FORMATS)}", format)
    known = [each.alias for each in attrs.fields(kind) if each.init]
    for name, value in given.items():
        if name not in known:
            raise SpecError(name, f"is no option of {format}, which has {', '.join(known)}", value)
    return kind(**given)


def _bytes(size: int | str) -> int:
    assert isinstance(size, int)  # the converter made it so
    return size


def _inside(encrypt: Encrypt | None) -> Iterator[Word]:
    """The options of the encryption inside a format that has others as well."""
    if encrypt is not None:
        yield "encrypt.format", encrypt.format
        for word, value in encrypt.words():
            yield f"encrypt.{word}", value
