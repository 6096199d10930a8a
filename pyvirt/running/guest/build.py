"""Builds the default guest: a description and this host → a kernel and an initramfs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

from pyvirt.errors import SpecError
from pyvirt.guest import Guest, cmdline, cpio, hardware, modules
from pyvirt.guest.initramfs import applets, initramfs
from pyvirt.guest.kernel import Kernel
from pyvirt.guest.modules import Module
from pyvirt.guest.unpack import unpack
from pyvirt.guest.vmlinux import vmlinux
from pyvirt.running.guest import additions, kernel, programs
from pyvirt.running.guest.apt import Progress
from pyvirt.running.guest.cache import Cache, Recipe
from pyvirt.running.guest.sources import Sources, identity

_CODE = (Path(modules.__file__).parent, Path(__file__).parent)


@frozen
class Built:
    """What QEMU is given to boot a default guest: files in the cache, and a command line.

    `packed` is the kernel as its distribution made it.
    """

    kernel: Path
    initramfs: Path
    append: str
    packed: Path


def build(
    guest: Guest | None = None, *, progress: Progress | None = None, cache: Cache | None = None
) -> Built:
    """The kernel and initramfs for *guest*, from the cache when nothing has changed.

    Raises `SpecError` naming the field that this host cannot fulfil, `UnsupportedError` or
    `DownloadError` when there is no kernel and none can be had.
    """
    guest, cache = guest or Guest(), cache or Cache()
    report = progress or _silent
    key = _key("guest", _described(guest), kernel.candidates())
    found = _once(cache, key, lambda: _make(key, guest, cache, report))
    return Built(
        found.objects["kernel"],
        found.objects["initramfs"],
        found.values["append"],
        Path(found.values["packed"]),
    )


def _once(cache: Cache, key: str, make: Callable[[], Recipe]) -> Recipe:
    """What *make* stores for *key*: made by one process, while the others wait for it."""
    found = cache.recipe(key)
    if found is None:
        with cache.lock(key):
            found = cache.recipe(key) or make()
    return found


def _make(key: str, guest: Guest, cache: Cache, progress: Progress) -> Recipe:
    chosen = kernel.choose(guest, cache, progress)
    image = _unpacked_kernel(chosen, cache, progress)
    progress("building the initramfs", None)
    sources = _sources(chosen)
    found, load = _modules(chosen, guest.modules, sources)
    static = programs.read(sources, cache, progress)
    names = frozenset(applets(static.busybox))
    files = additions.gather(guest, names, sources, cache, progress)
    archive = cache.add(cpio.newc(initramfs(static, chosen.release, found, load, files)), ".cpio")
    made = Recipe(
        {"kernel": image, "initramfs": archive},
        {"append": cmdline.append(guest.append), "packed": str(chosen.image)},
    )
    cache.store(key, made, sources.identities)
    cache.prune()
    return made


def _sources(chosen: Kernel) -> Sources:
    sources = Sources()
    sources.note(chosen.image)
    for folder in _CODE:  # another version of pyvirt may write something else
        for path in sorted(folder.glob("*.py")):
            sources.note(path)
    return sources


def _unpacked_kernel(chosen: Kernel, cache: Cache, progress: Progress) -> Path:
    """The uncompressed image of a kernel, which takes a second to unpack, once."""
    sources = _sources(chosen)
    key = _key("vmlinux", str(chosen.image), identity(chosen.image))

    def make() -> Recipe:
        progress(f"unpacking the kernel {chosen.release}", None)
        image = vmlinux(chosen.image.read_bytes(), str(chosen.image))
        made = Recipe({"vmlinux": cache.add([image], ".vmlinux")}, {})
        cache.store(key, made, sources.identities)
        return made

    return _once(cache, key, make).objects["vmlinux"]


def _modules(
    chosen: Kernel, extra: tuple[str, ...], sources: Sources
) -> tuple[dict[str, tuple[Module, bytes]], list[str]]:
    """All modules that the guest brings, and the names of those that it always loads."""
    paths, builtin = chosen.catalogue(), chosen.builtin()
    contents: dict[str, bytes] = {}

    def load(name: str) -> Module | None:
        if chosen.modules is None or name not in paths:
            return None
        contents[name] = unpack(sources.read(chosen.modules / paths[name]), paths[name])
        return modules.read(paths[name], contents[name])

    asked = [name.replace("-", "_") for name in extra]
    for index, name in enumerate(asked):
        if name not in paths and name not in builtin:
            raise SpecError(f"modules[{index}]", f"is not in kernel {chosen.release}", name)
    found = modules.closure((*hardware.EVERYTHING, *asked), load)
    first = [name for name in (*hardware.AGENT, *asked) if name in found]
    return {name: (module, contents[name]) for name, module in found.items()}, first


def _described(guest: Guest) -> list[Any]:
    """*guest* and where the host's PATH leads, as what a key is made of."""
    files = [
        (path, given if isinstance(given, Path) else hashlib.sha256(given).hexdigest())
        for path, given in sorted(guest.files.items())
    ]
    binaries = [(name, additions.which(name)) for name in guest.binaries]
    init = guest.init if isinstance(guest.init, str) else ("path", guest.init)
    return [files, binaries, guest.packages, guest.modules, init, guest.kernel, guest.qga,
            guest.append]  # fmt: skip


def _key(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _silent(what: str, done: float | None) -> None:
    """Tells nobody."""
