"""Seccomp profiles in the text that liblxc reads (its "version 2")."""

from __future__ import annotations

from collections.abc import Iterable

#: Calls that no container has a use for, and that reach past one: loading code into the
#: kernel, and opening files by number, which ignores every mount.
DANGEROUS = (
    "kexec_load", "kexec_file_load", "open_by_handle_at", "init_module", "finit_module",
    "delete_module",
)  # fmt: skip


def deny(calls: Iterable[str], errno: int = 1) -> str:
    """A profile in which all calls but these succeed, and these fail with `errno`."""
    rules = "".join(f"{call} errno {errno}\n" for call in calls)
    return f"2\ndenylist allow\nreject_force_umount\n[all]\n{rules}"


def allow(calls: Iterable[str], errno: int = 1) -> str:
    """A profile in which only these calls succeed, and all others fail with `errno`."""
    rules = "".join(f"{call}\n" for call in calls)
    return f"2\nallowlist errno {errno}\n[all]\n{rules}"
