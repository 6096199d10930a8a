"""The properties of ``-chardev`` as the arguments of ``chardev-add``, which nests them.

QEMU's two faces differ in names and in defaults: on the command line a socket is a client
and a server waits; in QMP a socket is a server and does not wait. What the command line
means is what counts here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Properties = Mapping[str, Any]

# What each option of the command line is called in QMP.
_RENAMED = {
    "file": {"path": "out", "input-path": "in"},
    "serial": {"path": "device"},
    "parallel": {"path": "device"},
    "pipe": {"path": "device"},
    "spicevmc": {"name": "type"},
    "spiceport": {"name": "fqdn"},
}

# The command line's names for the same backend.
_ALIASES = {"tty": "serial", "parport": "parallel"}

# What belongs to the address of a socket, and not to the chardev.
_INET = ("host", "port", "to", "ipv4", "ipv6", "numeric", "keep-alive", "mptcp")
_UNIX = ("path", "abstract", "tight")


def chardev(properties: Properties) -> dict[str, Any]:
    """The arguments of ``chardev-add`` that do what ``-chardev properties`` does.

    Raises `ValueError` for a multiplexer, which only the command line makes.
    """
    if properties.get("mux"):
        raise ValueError("a multiplexed chardev can only be given when QEMU starts")
    given = {key: value for key, value in properties.items() if value is not None}
    backend, id = given.pop("backend"), given.pop("id")
    given.pop("mux", None)
    kind = _ALIASES.get(backend, backend)
    data = _SHAPES.get(kind, _renamed(kind))(given)
    return {"id": id, "backend": {"type": kind, "data": data}}


def _renamed(kind: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    names = _RENAMED.get(kind, {})
    return lambda given: {names.get(key, key): value for key, value in given.items()}


def _socket(given: dict[str, Any]) -> dict[str, Any]:
    server = given.get("server", False)
    address = _socket_address(given)
    rest = {key: value for key, value in given.items() if key not in {*_INET, *_UNIX, "fd"}}
    return {**rest, "addr": address, "server": server, **_wait(server, given)}


def _wait(server: bool, given: Properties) -> dict[str, bool]:
    return {"wait": given.get("wait", True)} if server else {}


def _socket_address(given: Properties) -> dict[str, Any]:
    if "fd" in given:
        return {"type": "fd", "data": {"str": str(given["fd"])}}
    if "path" in given:
        return {"type": "unix", "data": _pick(given, _UNIX)}
    return {"type": "inet", "data": _inet(_pick(given, _INET))}


def _udp(given: dict[str, Any]) -> dict[str, Any]:
    local = {"host": given.get("localaddr"), "port": given.get("localport")}
    rest = {
        key: value for key, value in given.items() if key not in {*_INET, "localaddr", "localport"}
    }
    rest["remote"] = {"type": "inet", "data": _inet(_pick(given, _INET))}
    if any(value is not None for value in local.values()):
        rest["local"] = {"type": "inet", "data": _inet(dict(_present(local)))}
    return rest


def _inet(address: dict[str, Any]) -> dict[str, Any]:
    return {**address, "host": address.get("host", ""), "port": str(address.get("port", "0"))}


def _pick(given: Properties, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _present(given: Properties) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in given.items() if value is not None)


_SHAPES = {"socket": _socket, "udp": _udp}
