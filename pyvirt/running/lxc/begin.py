"""Bring a described container to life, or leave nothing behind; find one that runs."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from pyvirt._native import program
from pyvirt.container import Busybox, Container
from pyvirt.container.render import INSIDE, Host
from pyvirt.errors import ClosedError, SpecError, UnsupportedError
from pyvirt.files.read import build
from pyvirt.files.write import table
from pyvirt.lxc import cgroup
from pyvirt.rootfs import IdMap
from pyvirt.running.children.keeper import forget, keep
from pyvirt.running.lxc import host
from pyvirt.running.lxc.engine import LOCK, Engine
from pyvirt.running.lxc.groups import Groups
from pyvirt.running.lxc.library import library
from pyvirt.running.lxc.store import Store
from pyvirt.running.rootfs import Prepared, prepare, require

if TYPE_CHECKING:
    from pyvirt.running.rootfs.watch import Progress

#: What a container that runs is known by, in its directory.
DESCRIPTION, RUNNING = "container.json", "running.json"


def start(
    container: Container,
    *,
    timeout: float = LOCK,
    progress: Progress | None = None,
    detach: bool = False,
    store: Store | None = None,
) -> Engine:
    """Start `container` in a directory of its own; see `Container.start`."""
    library()
    store = store or Store()
    idmap = check(container)
    with _made(store, container.name) as place, store.lock(place.name, timeout):
        prepared = prepare(container.rootfs, place, idmap=idmap, progress=progress)
        return boot(container, store, place, prepared, idmap, detach=detach)


def check(container: Container) -> IdMap | None:
    """Raise for what this host lacks, before anything is made. What "auto" comes to."""
    host.check(container)
    host.devices(container)
    Groups(host.layout(), "").support(container)
    return host.idmap(container)


@contextmanager
def _made(store: Store, name: str | None) -> Iterator[Path]:
    """A new directory in the store, gone when the body fails, or with this process."""
    place = store.make(name)
    keep(place)
    try:
        yield place
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        store.forget(place.name)
        forget(place)
        raise


def boot(
    container: Container,
    store: Store,
    place: Path,
    prepared: Prepared,
    idmap: IdMap | None,
    *,
    detach: bool = False,
    kept: bool = False,
) -> Engine:
    """Start what is prepared in `place`, whose lock the caller holds.

    With `kept` the directory stays when the container ends. Whatever fails is undone.
    """
    groups = Groups(host.layout(), f"pyvirt-{place.name}-{secrets.token_hex(4)}")
    whole = as_imaged(container, prepared)
    if whole.command is None:
        require(prepared, whole.init)
    write(whole, groups, place, prepared, idmap)
    (place / DESCRIPTION).write_text(json.dumps(table(container), indent=2) + "\n")
    (place / RUNNING).write_text(json.dumps({"group": groups.name, "owned": not detach}) + "\n")
    engine = Engine(whole, store, place, groups, detached=False, kept=kept or detach)
    try:
        launch(engine)
    except BaseException:
        _undo(engine)
        raise
    if detach:
        forget(place)
        engine.detach()
    return engine


def launch(engine: Engine) -> None:
    """Start the container of `engine`, and see that the kernel took its limits."""
    engine.start(command(engine.container))
    engine.groups.verify(engine.container)
    engine.groups.verify_raw(engine.container.raw)
    if engine.container.command is not None:
        engine.contained()


def again(engine: Engine) -> None:
    """Start it once more, with the limits that it has now."""
    path = engine.place / "config"
    path.write_text(relimited(path.read_text(), engine))
    engine.renew()
    launch(engine)


def relimited(config: str, engine: Engine) -> str:
    """The text of a configuration with the limits of `engine` instead of those in it."""
    limits = [str(one) for one in cgroup.lines(engine.container.settings(), engine.groups.layout)]
    own = re.compile(r"lxc\.cgroup2?\.(?!devices\.|dir\.)")
    raw = set(engine.container.raw)
    kept = [row for row in config.splitlines()
            if not own.match(row) or row.partition(" = ")[0] in raw]  # fmt: skip
    return "\n".join([*kept, *limits, ""])


def _undo(engine: Engine) -> None:
    engine.finish()
    engine.release()


def as_imaged(container: Container, prepared: Prepared) -> Container:
    """The description, completed by what its image says; what is described wins."""
    process = prepared.process
    if process is None:
        return container
    own_init = container.command is None and container.init != "/sbin/init"
    return attrs.evolve(
        container,
        command=container.command if container.command or own_init else process.command or None,
        env={**process.env, **container.env},
        cwd=container.cwd or process.cwd or None,
        user=container.user or process.user or None,
        hostname=container.hostname or process.hostname or None,
        stop_signal=container.stop_signal or process.stop_signal or None,
    )


def command(container: Container) -> tuple[str, ...]:
    """The words of its first process: its init, or ours with its command."""
    if container.command is None:
        return (container.init,)
    words = (container.user or "", container.cwd or "", *container.command)
    return (f"/{INSIDE}/contain", *words)


def write(
    container: Container, groups: Groups, place: Path, prepared: Prepared, idmap: IdMap | None
) -> None:
    """Write what liblxc reads into `place`."""
    if container.seccomp is not None:
        (place / "seccomp").write_text(container.seccomp.profile())
    init = None
    if container.command is not None:
        init = str(place / "contain")
        shutil.copyfile(_contain(), init)
        os.chmod(init, 0o755)
    known = Host(
        name=place.name,
        rootfs=prepared.source,
        options=prepared.options,
        place=str(place),
        group=groups.name,
        layout=groups.layout,
        apparmor=host.apparmor(),
        idmap=idmap,
        devices=host.devices(container),
        init=init,
        stop_signal=stop_signal(container, prepared),
    )
    (place / "config").write_text(container.config(known))


def _contain() -> Path:
    path = program("contain")
    if not path.is_file():
        hint = "build pyvirt with a C compiler and a static C library"
        raise UnsupportedError("pyvirt's program contain", str(path.parent), hint)
    return path


def stop_signal(container: Container, prepared: Prepared) -> str | None:
    """What asks the first process to end, by the kind of init; None leaves it to LXC."""
    if container.stop_signal is not None or container.command is not None:
        return container.stop_signal or "SIGTERM"
    if isinstance(container.rootfs, Busybox):
        return "SIGUSR2"
    root = prepared.source.partition(":")[2].partition(":")[0]
    try:
        init = os.readlink(f"{root}{container.init}")
    except OSError:
        return None
    if init.endswith("busybox"):
        return "SIGUSR2"
    return "SIGRTMIN+3" if init.endswith("systemd") else None


def attach(name: str, *, store: Store | None = None) -> Engine:
    """The container `name` that runs, started detached or by another process.

    Raises `SpecError` when there is none of that name, `ClosedError` when it does not run.
    """
    library()
    store = store or Store()
    place = store.place(name)
    try:
        described = json.loads((place / DESCRIPTION).read_text())
        running = json.loads((place / RUNNING).read_text())
    except FileNotFoundError:
        there = ", ".join(store.names()) or "none"
        raise SpecError("name", f"must be one of the containers ({there})", name) from None
    groups = Groups(host.layout(), str(running["group"]))
    container = build(Container, described, "")
    engine = Engine(container, store, place, groups, detached=True, kept=True)
    if engine.handle.state() == "stopped":
        engine.close()
        raise ClosedError(f"container {name}", "it does not run")
    engine.watch()
    return engine
