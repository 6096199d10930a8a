"""Real containers for tests: whether this machine can have them, and whether one left something."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import pytest

from pyvirt.errors import UnsupportedError
from pyvirt.running.lxc.library import library
from pyvirt.running.lxc.store import Store


def _reason() -> str | None:
    if os.geteuid() != 0:
        return "containers need root here"
    try:
        library()
    except UnsupportedError as error:
        return str(error)
    if not any(Path("/sys/fs/cgroup").glob("*")):
        return "no control groups are mounted"
    return None


REASON = _reason()
needs_containers = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@contextmanager
def new_store() -> Iterator[Store]:
    """A store through which the users of unprivileged containers may pass."""
    root = Path(tempfile.mkdtemp(prefix="pyvirt-store-"))
    root.chmod(0o711)
    try:
        yield Store(root)
    finally:
        shutil.rmtree(root)


def traces(name: str, store: Store) -> list[str]:
    """What is left of containers called `name`, which may have ``*`` in it: groups, mounts,
    processes, interfaces, directories."""
    place = f"{store.root}/{name}"
    tops = [path for path in Path("/sys/fs/cgroup").iterdir() if path.is_dir()]
    groups = (path for top in tops for path in top.iterdir())
    found = [str(path) for path in (*tops, *groups) if fnmatch(path.name, f"pyvirt-{name}-*")]
    mounts = Path("/proc/mounts").read_text().splitlines()
    found += [mount for mount in mounts if fnmatch(mount, f"*{place}/*")]
    found += [words for words in _monitors() if fnmatch(words, f"*{store.root} {name} *")]
    found += [str(path) for path in store.root.glob(name)]
    return found


def _monitors() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_text("utf-8", "replace").replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words.startswith("[lxc monitor]"):
            yield words + " "
