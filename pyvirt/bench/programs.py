"""Programs of the host's end: installed ones, or those of the guest's own packages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from pyvirt.errors import UnsupportedError
from pyvirt.running.guest import Cache, apt

_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib", "lib")


def find(name: str) -> tuple[str, Mapping[str, str]]:
    """The path of `name`, and the environment in which it runs.

    `UnsupportedError` where it is neither installed nor in a package of its name.
    """
    path = shutil.which(name)
    if path is not None:
        return path, os.environ
    trees = _packages(name)
    for tree in trees:
        program = tree / "usr/bin" / name
        if program.exists():
            return str(program), {**os.environ, "LD_LIBRARY_PATH": _libraries(trees)}
    raise UnsupportedError(name, "this host", f"install the package {name}")


@cache
def _packages(name: str) -> list[Path]:
    """The package `name` and those that it needs, unpacked: the guest has had them before."""
    wanted = apt.wanted_packages([name])
    return [apt.unpacked(archive, Cache(), lambda _what, _share: None) for archive in wanted]


def _libraries(trees: list[Path]) -> str:
    places = (tree / place for tree in trees for place in _LIBRARIES)
    return os.pathsep.join(str(place) for place in places if place.is_dir())
