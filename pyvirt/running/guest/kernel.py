"""Which kernel a default guest boots: one that is installed, one in the cache, or a download."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

from pyvirt.errors import SpecError, UnsupportedError
from pyvirt.guest import Guest
from pyvirt.guest import kernel as kernels
from pyvirt.guest.kernel import Kernel
from pyvirt.running.guest import apt
from pyvirt.running.guest.apt import Progress
from pyvirt.running.guest.cache import Cache

_META = {"debian": "linux-image-amd64", "ubuntu": "linux-image-generic"}
"""The packages that lead to the newest kernel. Debian's and Ubuntu's kernels for clouds are
smaller, and have no driver for most of the hardware that QEMU can give a guest."""


def choose(guest: Guest, cache: Cache, progress: Progress) -> Kernel:
    """The kernel for *guest*."""
    if guest.kernel is not None:
        return _named(guest.kernel)
    poor = []
    for kernel in at_hand(cache):
        if not kernel.lacks():
            return kernel
        poor.append(kernel)
    try:
        return _download(cache, progress)
    except UnsupportedError:
        if not poor:
            raise
        return poor[0]  # better than none: it lacks drivers, and the user chose to install it


def at_hand(cache: Cache) -> Iterator[Kernel]:
    """The kernels that need no download, the better ones first."""
    yield from kernels.installed()
    yield from _downloaded(cache)


def candidates() -> list[str]:
    """The names of what is installed: when they change, so may the choice."""
    places = [p for p in ("/boot", "/lib/modules", "/usr/lib/modules") if os.path.isdir(p)]
    return [f"{place}/{name}" for place in places for name in sorted(os.listdir(place))]


def _named(image: Path) -> Kernel:
    if not image.is_file():
        raise SpecError("kernel", "must be a file", str(image))
    return kernels.of(image)


def _downloaded(cache: Cache) -> Iterator[Kernel]:
    trees = [tree for tree in cache.trees() if tree.name.startswith("linux-image-")]
    for tree in sorted(trees, key=lambda tree: kernels.newness(tree.name), reverse=True):
        yield from _in_trees(tree, cache.trees())


def _in_trees(image: Path, trees: list[Path]) -> list[Kernel]:
    """The kernel unpacked in *image*, with the modules that lie in another package's tree."""
    found = kernels.installed(image)
    if found or not (image / "boot").is_dir():
        return found
    return [
        Kernel(release, file, tree / "lib/modules" / release)
        for file in sorted((image / "boot").glob("vmlinuz-*"))
        for release in [file.name.removeprefix("vmlinuz-")]
        for tree in trees
        if (tree / "lib/modules" / release / "kernel").is_dir()
    ][:1]


def _download(cache: Cache, progress: Progress) -> Kernel:
    progress("looking for a kernel", None)
    found = apt.kernel_packages(meta_package())
    trees = [apt.unpacked(archive, cache, progress) for archive in found]
    for tree in trees:
        for kernel in _in_trees(tree, trees):
            return kernel
    names = ", ".join(archive.name for archive in found)
    raise UnsupportedError("a kernel with its modules", names, apt.NAME_A_KERNEL)


def meta_package() -> str:
    """The package that leads to this distribution's newest kernel; `UnsupportedError`."""
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        system = {}
    for name in (system.get("ID", ""), *system.get("ID_LIKE", "").split()):
        if name in _META and platform.machine() == "x86_64":
            return _META[name]
    what = f"{system.get('PRETTY_NAME', 'this distribution')} on {platform.machine()}"
    raise UnsupportedError("a kernel for the default guest", what, apt.NAME_A_KERNEL)
