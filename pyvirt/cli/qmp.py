"""``pyvirt qmp``: talk to a QEMU that runs already."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from pyvirt.cli.output import Output, json_option

if TYPE_CHECKING:
    from pyvirt.running.wire.monitor import Monitor


@click.command("qmp", context_settings={"ignore_unknown_options": True})
@click.argument("socket", type=click.Path())
@click.argument("words", nargs=-1, metavar="[COMMAND [NAME=VALUE]...]")
@click.option("--timeout", type=float, default=60.0, show_default=True, metavar="SECONDS",
              help="How long to wait for QEMU.")  # fmt: skip
@json_option
def command(output: Output, socket: str, words: tuple[str, ...], timeout: float) -> int:
    """Talk to the QEMU that listens at SOCKET: one COMMAND, or a shell.

    SOCKET is the path of a Unix socket, or HOST:PORT. Arguments are NAME=VALUE, with dots
    for inner ones (file.driver=file), or one JSON object; the schema of this QEMU says what
    each means. What a command returns is printed as JSON. The shell completes commands and
    arguments, shows events as they come, and knows "help COMMAND". Without a terminal it
    reads commands line by line.
    """
    from pyvirt.cli import shell
    from pyvirt.cli.qmp_words import command as read

    with _connected(socket, timeout) as monitor:
        schema = monitor.learn(timeout=timeout)
        if words:
            name, arguments = read(schema, words)
            click.echo(written(_called(monitor, name, arguments, timeout)))
            return 0
        if sys.stdin.isatty() and not output.json:
            return shell.interactive(monitor, schema, timeout)
        return shell.script(monitor, schema, timeout, output)


def _connected(socket: str, timeout: float) -> Monitor:
    from pyvirt.running.wire.monitor import Monitor

    try:
        return Monitor.connect(address(socket), timeout=timeout, peer=f"QEMU at {socket}")
    except OSError as error:
        error.filename = error.filename or socket
        raise


def address(text: str) -> str | tuple[str, int]:
    """The path of a Unix socket ("unix:/run/q.sock"), or a host and a port ("tcp:[::1]:4444")."""
    if text.startswith("unix:"):
        return text.removeprefix("unix:")
    host, colon, port = text.removeprefix("tcp:").rpartition(":")
    if "/" in text or not colon or not port.isdigit():
        return text
    return host.strip("[]") or "localhost", int(port)


def written(value: Any) -> str:
    """What a command returned, for people and programs alike."""
    return json.dumps(value, indent=2)


def _called(monitor: Monitor, name: str, arguments: dict[str, Any], timeout: float) -> Any:
    from pyvirt.qmp.check import conform

    given = conform(monitor.learn(), name, arguments)
    return monitor.execute(name, given, timeout=timeout)
