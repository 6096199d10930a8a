"""A shell on a monitor: completed, with a history, and with events as they come."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pyvirt.cli.output import Output, sentence
from pyvirt.cli.qmp_words import complete, parse
from pyvirt.errors import ClosedError, PyvirtError, SpecError
from pyvirt.qmp.check import conform
from pyvirt.qmp.commands import documentation

if TYPE_CHECKING:
    from pyvirt.qmp.event import Event
    from pyvirt.qmp.schema import Schema
    from pyvirt.running.wire.monitor import Monitor

#: Lines of history that are kept.
HISTORY = 1000

_LEAVE = ("exit", "quit-shell")


def interactive(monitor: Monitor, schema: Schema, timeout: float) -> int:
    """Read commands from the terminal until Ctrl-D, "exit" or the end of QEMU."""
    assert monitor.greeting is not None
    release = monitor.greeting.version.qemu
    prompt = f"(QEMU {release.major}.{release.minor}.{release.micro}) "
    click.echo('Tab completes, "help COMMAND" explains, Ctrl-D leaves.')
    with _editing(schema), _events_shown(monitor, prompt):
        while True:
            try:
                line = input(prompt)
            except EOFError:
                click.echo()
                return 0
            except KeyboardInterrupt:
                click.echo()
                continue
            if line.strip() in _LEAVE:
                return 0
            if not _answered(monitor, schema, line, timeout):
                return 1


def script(monitor: Monitor, schema: Schema, timeout: float, output: Output) -> int:
    """Run the lines of standard input; the first one that fails ends it."""
    replies = []
    for line in sys.stdin:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        reply = _run(monitor, schema, line, timeout)
        if output.json:
            replies.append(reply)
        else:
            click.echo(json.dumps(reply, indent=2))
    if output.json:
        output.document(replies)
    return 0


def _answered(monitor: Monitor, schema: Schema, line: str, timeout: float) -> bool:
    """Print what a line results in; whether QEMU is still there."""
    words = line.split()
    try:
        if words and words[0] == "help":
            click.echo(_help(schema, words[1:]))
        elif words:
            click.echo(json.dumps(_run(monitor, schema, line, timeout), indent=2))
    except ClosedError as error:
        click.echo(sentence(error), err=True)
        return False
    except (PyvirtError, KeyboardInterrupt) as error:
        click.echo(sentence(error) if str(error) else "Interrupted.", err=True)
    return True


def _run(monitor: Monitor, schema: Schema, line: str, timeout: float) -> Any:
    name, arguments = parse(schema, line)
    return monitor.execute(name, conform(schema, name, arguments), timeout=timeout)


def _help(schema: Schema, names: list[str]) -> str:
    if not names:
        return "\n".join(schema.commands)
    return documentation(schema, schema.command(names[0]))


@contextmanager
def _events_shown(monitor: Monitor, prompt: str) -> Iterator[None]:
    """Print events above the line that is being typed."""
    with monitor.events() as events:

        def show() -> None:
            with suppress(ClosedError):
                for event in events:
                    _above(event_line(event), prompt)

        threading.Thread(target=show, daemon=True).start()
        yield


def event_line(event: Event) -> str:
    """An event in a line."""
    return f"{event.name} {json.dumps(event.data)}" if event.data else event.name


def _above(text: str, prompt: str) -> None:
    import readline

    begun = readline.get_line_buffer()
    sys.stdout.write(f"\r\x1b[K{click.style(text, dim=True)}\n{prompt}{begun}")
    sys.stdout.flush()


@contextmanager
def _editing(schema: Schema) -> Iterator[None]:
    """Completion and history for `input`."""
    import readline

    def propose(_: str, state: int) -> str | None:
        line = readline.get_line_buffer()[: readline.get_endidx()]
        try:
            found = complete(schema, line)
        except SpecError:
            return None
        return found[state] if state < len(found) else None

    readline.set_completer(propose)
    readline.set_completer_delims(" ")
    readline.parse_and_bind("tab: complete")
    file = history_file()
    with suppress(OSError):
        readline.read_history_file(file)
    try:
        yield
    finally:
        readline.set_completer(None)
        readline.set_history_length(HISTORY)
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            readline.write_history_file(file)


def history_file() -> Path:
    """Where typed commands are remembered (XDG base directory specification)."""
    home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "state"
    return base / "pyvirt" / "qmp_history"
