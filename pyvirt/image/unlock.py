"""Encrypted layers unlocked by a passphrase."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterator
from hmac import compare_digest
from typing import Any, NamedTuple

from pyvirt._native.cipher import Cipher
from pyvirt.errors import ImageError, PassphraseError, UnsupportedError
from pyvirt.image.budget import Budget
from pyvirt.image.formats import luks
from pyvirt.image.layer import Layer
from pyvirt.image.passphrase import SECTOR, argon2, cipher, merged, pbkdf2
from pyvirt.image.source import Source, exactly, name_of

#: What a passphrase opens in one key slot: the key of the disk.
_MOST_MATERIAL = 64 << 20


class Lock(NamedTuple):
    """How the encrypted bytes of a layer are decrypted; without a cipher they cannot be."""

    cipher: Cipher | None = None
    #: Sectors are counted by the guest's bytes, not by those of the file.
    by_guest: bool = False
    #: Where in the file counting begins.
    payload: int = 0


def lock(layer: Layer, passphrase: str | bytes | None) -> Lock:
    """The lock of `layer`, opened with `passphrase` if it is encrypted."""
    secret = passphrase.encode() if isinstance(passphrase, str) else passphrase
    if secret is None:
        return Lock()
    if layer.format == "luks":
        return _luks(layer.sources[0], layer.info, secret)
    method = getattr(getattr(layer.info, "header", layer.info), "crypt_method", 0)
    if layer.format == "qcow2" and method == 2:
        return _qcow2_luks(layer, secret)
    if layer.format in ("qcow2", "qcow") and method == 1:
        # The passphrase is the key; nothing tells whether it is the right one.
        return Lock(Cipher("AES-128-CBC", secret[:16].ljust(16, b"\0"), "plain64"), by_guest=True)
    return Lock()


def _luks(source: Source, info: luks.Info1 | luks.Info2, secret: bytes) -> Lock:
    if isinstance(info, luks.Info1):
        return _luks1(source, info, secret)
    return _luks2(source, info, secret)


class _Window:
    """A part of a source, read as a source of its own."""

    def __init__(self, source: Source, offset: int, size: int) -> None:
        self.source, self.offset, self.size = source, offset, size
        self.name = name_of(source)

    def pread(self, size: int, offset: int, /) -> bytes:
        return self.source.pread(min(size, max(self.size - offset, 0)), self.offset + offset)


def _qcow2_luks(layer: Any, secret: bytes) -> Lock:
    """qcow2 keeps the LUKS header in clusters of its own, and counts sectors of the file."""
    place, source = layer.info.header.crypto, layer.sources[0]
    window = _Window(source, place.offset, min(place.length, source.size))
    header = luks.open(window, budget=Budget(), siblings=_nothing)
    return _luks(window, header.info, secret)._replace(payload=0)


def _nothing(reference: Any) -> Source:
    raise AssertionError(f"a LUKS header names no file such as {reference}")


# -- Version 1 ---------------------------------------------------------------------------------


def _luks1(source: Source, info: luks.Info1, secret: bytes) -> Lock:
    header, path = info.header, name_of(source)
    for slot in info.key_slots:
        if not slot.enabled:
            continue
        key = pbkdf2(path, header.hash_spec, secret, slot.salt, slot.iterations, header.key_bytes)
        found = _opened(
            source, slot.key_material_offset * SECTOR, slot.stripes, header.key_bytes,
            cipher(header.cipher_name, header.cipher_mode, key), header.hash_spec,
        )  # fmt: skip
        digest = pbkdf2(path, header.hash_spec, found, header.mk_digest_salt,
                        header.mk_digest_iter, len(header.mk_digest))  # fmt: skip
        if compare_digest(digest, header.mk_digest):
            payload = header.payload_offset * SECTOR
            return Lock(cipher(header.cipher_name, header.cipher_mode, found), payload=payload)
    raise PassphraseError(path)


def _opened(
    source: Source, offset: int, stripes: int, size: int, secret: Cipher, hash: str
) -> bytes:
    """The content of a key slot."""
    if not 0 < stripes * size <= _MOST_MATERIAL:
        raise ImageError(name_of(source), "has a key slot of impossible size", format="luks",
                         offset=offset, found=stripes * size)  # fmt: skip
    whole = -(-stripes * size // SECTOR) * SECTOR
    material = bytearray(exactly(source, whole, offset, "key slot"))
    secret.apply(material, 0)
    return merged(bytes(material[: stripes * size]), size, hash)


# -- Version 2 ---------------------------------------------------------------------------------


def _luks2(source: Source, info: luks.Info2, secret: bytes) -> Lock:
    path = name_of(source)
    try:
        return _unlock2(source, path, info.metadata, secret)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise ImageError(path, f"has key slots that cannot be understood: {error!r}",
                         format="luks", table="JSON area") from error  # fmt: skip


def _unlock2(source: Source, path: str, metadata: Any, secret: bytes) -> Lock:
    segment, segment_id = _segment(metadata)
    for number, slot in _slots(metadata):
        key = _derived(path, slot["kdf"], secret, int(slot["area"]["key_size"]))
        area, af = slot["area"], slot["af"]
        name, _, mode = area["encryption"].partition("-")
        found = _opened(source, int(area["offset"]), int(af["stripes"]), int(slot["key_size"]),
                        cipher(name, mode, key), af["hash"])  # fmt: skip
        if _is_key(path, metadata, number, segment_id, found):
            return _segment_lock(segment, found)
    raise PassphraseError(path)


def _segment(metadata: Any) -> tuple[Any, str]:
    """The encrypted segment that `LuksLayer` reads, and its number."""
    for number, segment in sorted(metadata["segments"].items()):
        if segment["type"] == "crypt":
            return segment, number
    raise KeyError("crypt")


def _slots(metadata: Any) -> Iterator[tuple[str, Any]]:
    for number, slot in sorted(metadata["keyslots"].items()):
        if slot["type"] == "luks2" and slot.get("priority") != 0:
            yield number, slot


def _derived(path: str, kdf: Any, secret: bytes, size: int) -> bytes:
    salt = b64decode(kdf["salt"])
    if kdf["type"] == "pbkdf2":
        return pbkdf2(path, kdf["hash"], secret, salt, int(kdf["iterations"]), size)
    return argon2(path, kdf["type"], secret, salt, kdf, size)


def _is_key(path: str, metadata: Any, slot: str, segment: str, key: bytes) -> bool:
    for digest in metadata["digests"].values():
        if slot in digest["keyslots"] and segment in digest["segments"]:
            expected = b64decode(digest["digest"])
            made = pbkdf2(path, digest["hash"], key, b64decode(digest["salt"]),
                          int(digest["iterations"]), len(expected))  # fmt: skip
            return compare_digest(made, expected)
    return False


def _segment_lock(segment: Any, key: bytes) -> Lock:
    sector, tweak = int(segment.get("sector_size", SECTOR)), int(segment.get("iv_tweak", 0))
    if tweak * SECTOR % sector:
        raise UnsupportedError(f"an IV tweak of {tweak}", f"sectors of {sector} bytes")
    name, _, mode = segment["encryption"].partition("-")
    payload = int(segment["offset"]) - tweak * SECTOR
    return Lock(cipher(name, mode, key, sector), payload=payload % (1 << 64))
