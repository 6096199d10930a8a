"""Passphrases to keys: PBKDF2, Argon2 and LUKS's anti-forensic splitting.

Sources: "LUKS1 On-Disk Format Specification 1.2.3", "LUKS2 On-Disk Format Specification 1.1.1",
RFC 8018, RFC 9106.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pyvirt._native.cipher import Cipher
from pyvirt.errors import ImageError, UnsupportedError

#: More than these costs minutes, or memory that only an attack would ask for (a header decides).
MOST_ITERATIONS = 200_000_000
MOST_MEMORY = 4 << 30
MOST_TIME = 1000

SECTOR = 512


def pbkdf2(path: str, hash: str, passphrase: bytes, salt: bytes, rounds: int, size: int) -> bytes:
    """The key of `size` bytes that a passphrase gives."""
    if not 0 < rounds <= MOST_ITERATIONS:
        raise ImageError(
            path,
            "asks for an impossible number of PBKDF2 iterations",
            format="luks",
            found=rounds,
            expected=f"1 to {MOST_ITERATIONS}",
        )
    return hashlib.pbkdf2_hmac(_hash(hash), passphrase, salt, rounds, size)


def _hash(name: str) -> str:
    """A hash by its name, if this host has it."""
    try:
        hashlib.new(name, usedforsecurity=False)
    except ValueError:
        raise UnsupportedError(f"hash {name}", "this host's OpenSSL") from None
    return name


_KINDS = {"argon2i": 1, "argon2id": 2}
_VERSION = 0x13
_PROTOTYPE = """
int argon2_hash(uint32_t t, uint32_t m, uint32_t p, const void *pwd, size_t pwdlen,
                const void *salt, size_t saltlen, void *hash, size_t hashlen, char *encoded,
                size_t encodedlen, int type, uint32_t version);
"""


def argon2(path: str, kind: str, passphrase: bytes, salt: bytes, kdf: Any, size: int) -> bytes:
    """The same by Argon2; `kdf` has "time", "memory" (KiB) and "cpus"."""
    time, memory, cpus = (kdf.get(name) for name in ("time", "memory", "cpus"))
    possible = (_within(time, MOST_TIME), _within(memory, MOST_MEMORY >> 10), _within(cpus, 64))
    if not all(possible) or kind not in _KINDS:
        raise ImageError(path, "asks for an impossible Argon2", format="luks",
                         found=(kind, time, memory, cpus))  # fmt: skip
    ffi, library = _libargon2()
    key = ffi.new("uint8_t[]", size)
    failed = library.argon2_hash(time, memory, cpus, passphrase, len(passphrase), salt, len(salt),
                                 key, size, ffi.NULL, 0, _KINDS[kind], _VERSION)  # fmt: skip
    if failed:
        raise ImageError(path, f"asks for what Argon2 refuses with error {failed}", format="luks")
    return bytes(key)


def _within(value: Any, most: int) -> bool:
    return isinstance(value, int) and 0 < value <= most


def _libargon2() -> tuple[Any, Any]:
    from cffi import FFI  # Slow to import, and only disks with Argon2 need it.

    ffi = FFI()
    ffi.cdef(_PROTOTYPE)
    try:
        return ffi, ffi.dlopen("libargon2.so.1")
    except OSError:
        raise UnsupportedError("Argon2", "this host: install libargon2-1") from None


def merged(material: bytes, size: int, hash: str) -> bytes:
    """The key of `size` bytes that was split into stripes."""
    new, key = hashlib.new(_hash(hash), usedforsecurity=False), 0
    for at in range(0, len(material) - size, size):
        mixed = key ^ int.from_bytes(material[at : at + size], "big")
        key = int.from_bytes(_diffused(new, mixed.to_bytes(size, "big")), "big")
    return (key ^ int.from_bytes(material[-size:], "big")).to_bytes(size, "big")


def _diffused(new: Any, data: bytes) -> bytes:
    result = b""
    for number, at in enumerate(range(0, len(data), new.digest_size)):
        one = new.copy()
        one.update(number.to_bytes(4, "big") + data[at : at + new.digest_size])
        result += one.digest()[: len(data) - at]
    return result


def cipher(name: str, mode: str, key: bytes, sector: int = SECTOR) -> Cipher:
    """The cipher that dm-crypt calls `name`-`mode`, such as aes-xts-plain64."""
    chaining, _, generator = mode.partition("-")
    iv, _, hash = generator.partition(":")
    bits = 8 * len(key) // (2 if chaining == "xts" else 1)
    if name not in ("aes", "camellia") or chaining not in ("xts", "cbc") or bits not in _BITS:
        raise UnsupportedError(f"cipher {name}-{mode} with {8 * len(key)} bits", "encrypted disks")
    if iv == "essiv":
        salt = hashlib.new(_hash(hash), key, usedforsecurity=False).digest()
        ecb = f"{name.upper()}-{8 * len(salt)}-ECB"
        return Cipher(f"{name.upper()}-{bits}-{chaining.upper()}", key, iv, sector, salt, ecb)
    return Cipher(f"{name.upper()}-{bits}-{chaining.upper()}", key, iv, sector)


_BITS = (128, 192, 256)
