"""Passphrases of encrypted images turned into the keys of their bytes."""

from __future__ import annotations

from typing import NamedTuple

from pyvirt._native.cipher import Cipher
from pyvirt.image.layer import Layer


class Lock(NamedTuple):
    """How the encrypted bytes of a layer are decrypted; without a cipher they cannot be."""

    cipher: Cipher | None = None
    #: Sectors are counted by the guest's bytes, not by those of the file.
    by_guest: bool = False
    #: Where in the file counting begins.
    payload: int = 0


def lock(layer: Layer, passphrase: str | bytes | None) -> Lock:
    """The lock of `layer`, opened with `passphrase` if it is encrypted."""
    return Lock()
