"""The static programs of a default guest: pyvirt's own, and a busybox."""

from __future__ import annotations

import shutil

from pyvirt._native import program
from pyvirt.errors import UnsupportedError
from pyvirt.guest import elf
from pyvirt.guest.initramfs import Programs
from pyvirt.running.guest import apt
from pyvirt.running.guest.apt import Progress
from pyvirt.running.guest.cache import Cache
from pyvirt.running.guest.sources import Sources


def read(sources: Sources, cache: Cache, progress: Progress) -> Programs:
    """The programs that every default guest has."""
    return Programs(
        agent=_own("agent", sources),
        drivers=_own("drivers", sources),
        busybox=busybox(sources, cache, progress),
    )


def busybox(sources: Sources, cache: Cache, progress: Progress) -> bytes:
    """A static busybox: the host's, or one that is downloaded."""
    return _installed(sources) or _downloaded(sources, cache, progress)


def _own(name: str, sources: Sources) -> bytes:
    path = program(name)
    if not path.is_file():
        hint = "build pyvirt with a C compiler and a static C library"
        raise UnsupportedError(f"pyvirt's program {name}", str(path.parent), hint)
    return sources.read(path)


def _installed(sources: Sources) -> bytes | None:
    path = shutil.which("busybox")
    data = sources.read(path) if path else b""
    return data if _is_static(data) else None


def _downloaded(sources: Sources, cache: Cache, progress: Progress) -> bytes:
    for archive in apt.wanted_packages(["busybox-static"]):
        if archive.name == "busybox-static":
            tree = apt.unpacked(archive, cache, progress)
            for path in (tree / "bin/busybox", tree / "usr/bin/busybox"):
                if path.is_file():
                    return sources.read(path)
    raise UnsupportedError("busybox", "the package busybox-static", "install a static busybox")


def _is_static(data: bytes) -> bool:
    if not elf.is_elf(data):
        return False
    program = elf.read(data, "busybox")
    return program.interpreter is None and not program.needed
