"""The commands by name; the module of one is imported when it is asked for."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any

import click

from pyvirt.cli.output import TRACEBACK, Output, sentence

#: Command → what it does, in the words of its own help (a test compares them).
COMMANDS = {
    "run": "Run COMMAND in a fresh guest, or open a terminal in it.",
    "command-line": "Print the command line that QEMU would be given; nothing is started.",
    "container": "Make containers, run in them, keep them.",
    "image": "Look into disk images, make them, change them.",
    "bench": "Measure virtio and the devices it replaces, in real guests on this host.",
    "doctor": "Say what this host has for guests, and how to get what it lacks.",
    "top": "Show what the virtqueues of running guests do: depth, requests and bytes each second.",
    "trace": "Show every virtio request of GUEST, which goes on as before.",
    "qmp": "Talk to the QEMU that listens at SOCKET: one COMMAND, or a shell.",
    "qmp-stubs": "Write a .pyi, so that editors and mypy know the commands of a QEMU.",
    "cache": "List or remove what was downloaded, built and learnt.",
    "completion": "Print what makes SHELL complete the words of pyvirt.",
}


class Commands(click.Group):
    """A group that knows its commands' names and lines of help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        found = import_module(f"pyvirt.cli.{name.replace('-', '_')}").command
        assert isinstance(found, click.Command)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # which click would turn into exit code 1
            raise Unheard from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but saying what may have been meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from pyvirt.qmp.schema import suggestion

            hint = suggestion(args[0], COMMANDS)
            ctx.fail(f"There is no command {args[0]!r}{f'; {hint}' if hint else '.'}")
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"pyvirt {version('pyvirt')}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Print the version and exit.",
)  # fmt: skip
def group() -> None:
    """Own real virtual machines: describe them, start them, talk to them, look inside."""


class Unheard(BaseException):
    """Whoever read standard output has gone."""


class Terminated(BaseException):
    """A signal asked this process to end."""


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit code of ``pyvirt`` with `arguments`; faults are one sentence on stderr."""
    output = Output()
    words = None if arguments is None else list(arguments)
    try:
        with _ended_by_signals():
            code = group.main(words, "pyvirt", standalone_mode=False, obj=output)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.UsageError as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 128 + signal.SIGINT
    except Terminated as end:
        return 128 + int(end.args[0])
    except Unheard:
        # The interpreter shall not try to flush stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except Exception as error:
        output.fault(error)
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        click.echo(f"pyvirt: {sentence(error)}", err=True)
        return 1


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end what is under way as Ctrl-C does: cleanly."""

    def end(number: int, frame: FrameType | None) -> Any:
        raise Terminated(number)

    try:
        before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    except ValueError:  # not the main thread: signals are somebody else's there
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
