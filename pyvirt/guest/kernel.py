"""Kernels on the host's disk: which are there, which module files they have."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from attrs import frozen

from pyvirt.errors import ProtocolError
from pyvirt.guest import modules

REQUIRED = ("virtio_console", "virtio_blk", "virtio_net", "ahci", "e1000", "nvme", "9p")
"""By these a kernel for a machine of any make is told from one for clouds only."""

_RELEASE_OFFSET = 0x20E  # of the boot header: where the text "6.1.0-56-amd64 (...)" is, - 0x200
_BANNER = re.compile(rb"Linux version (\S+) ")


@frozen
class Kernel:
    """A kernel `image` and the folder with the `modules` of its `release` (None: has none)."""

    release: str
    image: Path
    modules: Path | None

    def catalogue(self) -> dict[str, str]:
        """The names of its modules → paths relative to `modules`."""
        return modules.catalogue(_files(self.modules)) if self.modules else {}

    def builtin(self) -> frozenset[str]:
        """The names of modules that are part of the kernel itself."""
        listing = self.modules / "modules.builtin" if self.modules else None
        return modules.builtin(listing.read_text()) if listing and listing.exists() else frozenset()

    def lacks(self) -> list[str]:
        """Which of the `REQUIRED` drivers it does not have."""
        have = self.catalogue().keys() | self.builtin()
        return [name for name in REQUIRED if name not in have]


def installed(root: Path = Path("/")) -> list[Kernel]:
    """The readable kernels of the system in *root* that have their modules, newest first."""
    folders = {p.name: p for p in (root / "lib/modules", root / "usr/lib/modules")
               for p in (p.iterdir() if p.is_dir() else ()) if (p / "kernel").is_dir()}  # fmt: skip
    found = []
    for release in sorted(folders, key=newness, reverse=True):
        for image in (root / "boot" / f"vmlinuz-{release}", folders[release] / "vmlinuz"):
            if os.access(image, os.R_OK):
                found.append(Kernel(release, image, folders[release]))
                break
    return found


def of(image: Path, roots: Iterable[Path] = (Path("/"),)) -> Kernel:
    """The kernel in file *image*, with the modules of its release from beside it or *roots*."""
    release = release_of(image.read_bytes(), str(image))
    for root in (*image.resolve().parents[:2], *roots):
        folder = root / "lib/modules" / release
        if folder.is_dir():
            return Kernel(release, image, folder)
    return Kernel(release, image, None)


def release_of(data: bytes, name: str) -> str:
    """What `uname -r` says in the kernel in *data*, a bzImage or vmlinux."""
    if data[0x202:0x206] == b"HdrS":
        at = int.from_bytes(data[_RELEASE_OFFSET : _RELEASE_OFFSET + 2], "little") + 0x200
        return data[at : data.index(b"\0", at)].split()[0].decode("ascii", "replace")
    banner = _BANNER.search(data)
    if banner is None:
        raise ProtocolError(name, "is not a Linux kernel", 0)
    return banner[1].decode("ascii", "replace")


def newness(release: str) -> list[tuple[int, str]]:
    """A sort key by which 6.1.0-10 comes after 6.1.0-9."""
    parts = re.split(r"(\d+)", release)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts]


def _files(folder: Path) -> list[str]:
    below = len(str(folder)) + 1
    return [f"{place}/{name}"[below:] for place, _, names in os.walk(folder) for name in names]
