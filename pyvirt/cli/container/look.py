"""What containers there are, and what is known about one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import click

from pyvirt.cli.container.place import store
from pyvirt.cli.output import Output, json_option, size, table

if TYPE_CHECKING:
    from pyvirt.running.lxc.container import RunningContainer


@click.command("list")
@json_option
def list_(output: Output) -> None:
    """List the containers that are kept, and those that run."""
    from pyvirt.running.kept import Kept

    kept = {each.name: each for each in Kept.all(store=store())}
    found = [{"name": name, "state": each.state, "kept": True, "snapshots": len(each.snapshots())}
             for name, each in kept.items()]  # fmt: skip
    others = [name for name in store().names() if name not in kept]
    found += [{"name": name, "state": _state(name), "kept": False, "snapshots": 0}
              for name in others]  # fmt: skip
    if output.json:
        output.document({"containers": found})
    elif found:
        rows: list[tuple[str, ...]] = [("NAME", "STATE", "KEPT", "SNAPSHOTS")]
        rows += [(str(each["name"]), str(each["state"]), "yes" if each["kept"] else "no",
                  str(each["snapshots"])) for each in found]  # fmt: skip
        click.echo(table(rows))


@click.command("info")
@click.argument("name")
@json_option
def info(output: Output, name: str) -> None:
    """Say what the container NAME is, and what it uses while it runs."""
    found = _info(name)
    if output.json:
        output.document(found)
        return
    known = {key: value for key, value in found.items() if value not in (None, [])}
    click.echo(table([(key, _shown(key, value)) for key, value in known.items()]))


def _info(name: str) -> dict[str, Any]:
    from pyvirt.errors import SpecError
    from pyvirt.files.write import table as description
    from pyvirt.running.kept import Kept

    running = _running(name)
    try:
        kept = Kept.find(name, store=store())
    except SpecError:
        if running is None:
            raise
        kept = None
    container = kept.container if kept is not None else running and running.container
    found: dict[str, Any] = {
        "name": name,
        "state": "stopped",
        "kept": kept is not None,
        "snapshots": [each.name for each in kept.snapshots()] if kept is not None else [],
        "description": container and description(container),
    }
    if running is not None:
        with running:
            found |= _live(running)
    return found


def _live(running: RunningContainer) -> dict[str, Any]:
    stats = running.stats()
    numbers = ("cpu", "memory", "memory_limit", "pids", "read", "written")
    return {
        "state": running.status(),
        "pid": running.pid,
        "addresses": {key: list(each) for key, each in running.addresses().items()},
        **{key: value for key, value in attrs.asdict(stats).items() if key in numbers},
    }


def _running(name: str) -> RunningContainer | None:
    from pyvirt.errors import ClosedError, SpecError
    from pyvirt.running.lxc.container import RunningContainer

    try:
        return RunningContainer.attach(name, store=store())
    except (SpecError, ClosedError):
        return None


def _state(name: str) -> str:
    running = _running(name)
    if running is None:
        return "stopped"
    with running:
        return running.status()


def _shown(key: str, value: Any) -> str:
    match value:
        case int() if key in ("memory", "memory_limit", "read", "written"):
            return size(value)
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.2f} s"
        case list():
            return ", ".join(map(str, value))
        case dict():
            return json.dumps(value)
    return str(value)
