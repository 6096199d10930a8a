"""The kernel command line of the default guest, chosen by measuring.

On TCG (q35, -nodefaults, Linux 6.1 of Debian, from start to userspace 1.46 s with `quiet`
alone) these save, in milliseconds of the guest's one CPU:

    cryptomgr.notests               230   self-tests of ciphers
    rodata=off                      120   kernel text made read-only, and searched for holes
    initcall_blacklist=             140   each see below
    mitigations=off, init_on_alloc   -    in all figures; without them everything is slower
"""

from __future__ import annotations

from collections.abc import Iterable

_WORDS = (
    "console=ttyS0",
    "quiet",
    "panic=-1",  # a panic ends the guest at once (QEMU is given -no-reboot or told otherwise)
    "no_timer_check",
    "mitigations=off",
    "init_on_alloc=0",
    "cryptomgr.notests",
    "rodata=off",
)

#: Initial calls that only cost time in a guest of this kind.
_BLACKLIST = (
    "crypto_kdf108_init",  # a self-test that cryptomgr.notests does not end
    "load_system_certificate_list",  # keys for module signatures, which are stripped
)


def append(release: str, extra: str = "") -> str:
    """The command line for kernel *release*, with the user's *extra* words last."""
    words = [*_WORDS, f"initcall_blacklist={','.join(_BLACKLIST)}", *extra.split()]
    return " ".join(words)


def ip(mac: str, address: str, gateway: str = "", server: str = "") -> str:
    """The word that gives the interface *mac* ("*": every one) its IPv4 address at once.

    *address* has its prefix (``10.0.2.15/24``); without this word the guest asks by DHCP.
    """
    return f"pyvirt.ip={mac},{address},{gateway},{server}"


def with_words(line: str, words: Iterable[str]) -> str:
    """*line* with more words."""
    return " ".join([line, *words])
