"""The options that describe a container, and the container that they and a file describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from pyvirt.errors import SpecError

if TYPE_CHECKING:
    from pyvirt.container import Container

C = TypeVar("C", bound=Callable[..., Any])

_PLAIN = ("memory", "cpus", "pids", "hostname", "init")
#: Options that may be given again → the field that they add to.
_PARTS = {"nics": "nics", "mounts": "mounts", "devices": "devices"}


def _kinds(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    from pyvirt import rootfs

    kinds = (name for name in rootfs.__all__ if hasattr(getattr(rootfs, name), "__attrs_attrs__"))
    return [CompletionItem(name) for name in kinds if name.startswith(begun)]


_OPTIONS = (
    click.option("--container", "file", metavar="FILE",
                 type=click.Path(exists=True, dir_okay=False),
                 help="A description, TOML or JSON; options are put over it."),
    click.option("--rootfs", metavar="KIND[,FIELD=VALUE...]", shell_complete=_kinds,
                 help="Its files: Busybox (the default), Debian,suite=bookworm, "
                      "OciImage,path=DIR,tag=NAME, Tarball,path=FILE, ..."),
    click.option("-m", "--memory", metavar="SIZE", help='A limit, such as "512M".'),
    click.option("-c", "--cpus", type=float, metavar="N", help="How many CPUs' time it may take."),
    click.option("--pids", type=int, metavar="N", help="How many tasks it may have."),
    click.option("--hostname", metavar="NAME", help="What it calls itself."),
    click.option("--init", metavar="PATH", help="Its first process; /sbin/init by default."),
    click.option("--nic", "nics", multiple=True, metavar="KIND[,FIELD=VALUE...]",
                 help="An interface: Veth,bridge=br0 or Macvlan,link=eth0."),
    click.option("--mount", "mounts", multiple=True, metavar="KIND[,FIELD=VALUE...]",
                 help="A mount: Bind,source=/srv,target=/srv."),
    click.option("--device", "devices", multiple=True, metavar="PATH[,FIELD=VALUE...]",
                 help="A device of this host: /dev/kvm."),
    click.option("--privileged", is_flag=True, help="Its root is this host's root."),
)  # fmt: skip


def container_options(command: C) -> C:
    """Adds the options that describe a container; they arrive in keywords for `container_of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def container_of(name: str | None, given: Mapping[str, Any]) -> Container:
    """The container in a description file, with what options say put over it or added to it."""
    from pyvirt import files
    from pyvirt.container import Container
    from pyvirt.files.read import build

    mapping = dict(files.parsed(given["file"])) if given["file"] is not None else {}
    if name is not None:
        mapping["name"] = name
    mapping |= {key: given[key] for key in _PLAIN if given[key] is not None}
    if given["privileged"]:
        mapping["idmap"] = {"type": "None"}
    if given["rootfs"] is not None:
        mapping["rootfs"] = _rootfs(given["rootfs"])
    for option, field in _PARTS.items():
        for word in given[option]:
            mapping[field] = [*_list(mapping, field), _part(word, field, mapping)]
    made = build(Container, mapping, "")
    assert isinstance(made, Container)
    return made


def _rootfs(word: str) -> dict[str, Any]:
    from pyvirt.cli.words import table
    from pyvirt.rootfs import RootFS

    return table(word, "type", RootFS, "rootfs")


def _part(word: str, field: str, mapping: Mapping[str, Any]) -> dict[str, Any]:
    from pyvirt.cli.words import table
    from pyvirt.container import Container
    from pyvirt.files import kinds

    first = "path" if field == "devices" else "type"
    at = f"{field}[{len(_list(mapping, field))}]"
    return table(word, first, kinds.item(kinds.hints(Container)[field]), at)


def _list(mapping: Mapping[str, Any], field: str) -> list[Any]:
    found = mapping.get(field, [])
    if not isinstance(found, list):
        raise SpecError(field, "must be a list", found)
    return found
