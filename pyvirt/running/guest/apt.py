"""Debian packages without root: downloaded by apt into the cache, and unpacked there."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pyvirt.errors import DownloadError, UnsupportedError
from pyvirt.guest import packages
from pyvirt.guest.packages import Archive
from pyvirt.running.guest.cache import Cache

Progress = Callable[[str, float | None], object]
"""Called with what is being done, and how much of it is done (0 to 1, None: not known)."""

_UNPACKED = ("boot/", "lib/", "usr/", "etc/", "bin/", "sbin/", "lib64/", "opt/")
_LEFT_OUT = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/lintian/",
             "usr/share/info/", "usr/share/bug/")  # fmt: skip
_ONLY_DEPENDS = tuple(
    f"--no-{kind}"
    for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
)


def kernel_packages(meta: str) -> list[Archive]:
    """The packages with the newest kernel and its modules, to which *meta* leads."""
    depends = _run(meta, ["apt-cache", "depends", "--recurse", *_ONLY_DEPENDS, meta])
    names = packages.kernel_packages(depends)
    if not names:
        raise _unknown(meta)
    return [found for name in names for found in _listed(name, ["download", name])]


def wanted_packages(names: Iterable[str]) -> list[Archive]:
    """The packages *names*, and those which they need and this host has not installed."""
    asked = list(names)
    with tempfile.TemporaryDirectory() as empty:  # apt leaves out what its own cache has
        flags = ["--no-install-recommends", "--reinstall", "-o", f"Dir::Cache::archives={empty}"]
        return _listed(" ".join(asked), ["install", *flags, *asked])


def unpacked(archive: Archive, cache: Cache, progress: Progress) -> Path:
    """The directory with the files of a package, downloaded when it is not in the cache."""

    def make(directory: Path) -> None:
        with tempfile.TemporaryDirectory(dir=directory.parent) as place:
            _download(archive, Path(place), progress)
            progress(f"unpacking {archive.name}", None)
            _unpack(next(Path(place).glob("*.deb")), directory)

    return cache.tree(archive.file.removesuffix(".deb"), make)


def _listed(names: str, command: list[str]) -> list[Archive]:
    found = packages.archives(_run(names, ["apt-get", "-qq", "--yes", "--print-uris", *command]))
    if not found:
        raise _unknown(names)
    return found


# Debian 12's Python 3.11.2 is older than filters; apt has checked what is unpacked.
_FILTER: dict[str, Any] = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}


def _unpack(package: Path, directory: Path) -> None:
    with package.open("rb") as file, packages.contents(file, package.name) as files:
        for member in files:
            name = member.name.removeprefix("./")
            if name.startswith(_UNPACKED) and not name.startswith(_LEFT_OUT):
                files.extract(member, directory, **_FILTER)


def _download(archive: Archive, place: Path, progress: Progress) -> None:
    """Run `apt-get download` in *place*; it checks what it gets against apt's signed lists."""
    what = f"downloading {archive.name} ({archive.size / 1e6:.0f} MB)"
    progress(what, 0.0)
    command = ["apt-get", "-qq", "-o", "APT::Status-Fd=1", "download",
               f"{archive.name}={archive.version}"]  # fmt: skip
    with tempfile.TemporaryFile("w+") as errors, _apt(command, place, errors.fileno()) as apt:
        assert apt.stdout is not None
        for line in apt.stdout:  # dlstatus:1:12.5:Retrieving file 1 of 1
            fields = line.split(":")
            if fields[0] == "dlstatus":
                progress(what, float(fields[2]) / 100)
        apt.wait()
        errors.seek(0)
        if apt.returncode != 0:
            raise DownloadError(archive.name, _complaint(errors.read()))


def _run(what: str, command: list[str]) -> str:
    with tempfile.TemporaryFile("w+") as errors, _apt(command, None, errors.fileno()) as apt:
        output, _ = apt.communicate()
        errors.seek(0)
        complaint = _complaint(errors.read())
    if apt.returncode == 0:
        return str(output)
    if "Unable to locate" in complaint or "No packages found" in complaint:
        raise _unknown(what)
    raise DownloadError(what, complaint)


def _apt(command: list[str], place: Path | None, errors: int) -> subprocess.Popen[str]:
    if shutil.which(command[0]) is None:
        raise UnsupportedError(command[0], "this host", NAME_A_KERNEL)
    return subprocess.Popen(
        command,
        cwd=place,
        env={**os.environ, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )


NAME_A_KERNEL = "name a kernel of your own in Guest.kernel"


def _unknown(names: str) -> UnsupportedError:
    hint = "run `apt-get update` as root if the lists are old or empty"
    return UnsupportedError(f"the package {names}", "apt's package lists", hint)


def _complaint(text: str) -> str:
    errors = [line[3:].strip() for line in text.splitlines() if line.startswith("E: ")]
    return errors[0] if errors else text.strip().rpartition("\n")[2]
