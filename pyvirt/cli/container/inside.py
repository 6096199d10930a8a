"""Commands in containers: in one that is made for it, and in one that runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pyvirt.cli.container.describe import container_of, container_options
from pyvirt.cli.container.place import store
from pyvirt.cli.output import Output, json_option
from pyvirt.cli.progress import Progress
from pyvirt.cli.run import Task, code, text, variables

if TYPE_CHECKING:
    from pyvirt.running.lxc.container import RunningContainer

C = TypeVar("C", bound=Callable[..., Any])

_SETTINGS = {"allow_interspersed_args": False}
_TASK = (
    click.option("-t", "--console", is_flag=True,
                 help="Give COMMAND (by default a shell) this terminal."),
    click.option("--env", multiple=True, metavar="NAME=VALUE", help="Set a variable of COMMAND."),
    click.option("--cwd", metavar="PATH", help="Where in the container COMMAND runs."),
    click.option("--user", metavar="NAME", help="Who in the container runs COMMAND."),
    click.option("--timeout", type=float, metavar="SECONDS",
                 help="End COMMAND after so many seconds."),
)  # fmt: skip


def _task_options(command: C) -> C:
    for option in reversed(_TASK):
        command = option(command)
    return command


@click.command("run", context_settings=_SETTINGS)
@click.argument("words", nargs=-1, metavar="COMMAND...")
@click.option("--name", metavar="NAME", help="How the container is called meanwhile.")
@_task_options
@container_options
@json_option
def run(
    output: Output,
    words: tuple[str, ...],
    name: str | None,
    console: bool,
    env: tuple[str, ...],
    cwd: str | None,
    user: str | None,
    timeout: float | None,
    **given: Any,
) -> int:
    """Run COMMAND in a container of its own, or open a terminal in it.

    One word is run by a shell ("uname -r | wc -c"), several as they are. Its input and
    output are those of pyvirt, and so is its exit code (128 and the signal's number when one
    ended it). The container is gone afterwards.
    """
    _check(words, console, output)
    container = container_of(name, given)
    task = Task(words, env=variables(env), cwd=cwd, user=user, timeout=timeout)
    with Progress() as progress:
        progress("starting a container")
        with container.start(progress=progress, store=store()) as running:
            progress.clear()
            return _run(running, task, console, output)


@click.command("exec", context_settings=_SETTINGS)
@click.argument("name")
@click.argument("words", nargs=-1, metavar="COMMAND...")
@_task_options
@json_option
def exec_(
    output: Output,
    name: str,
    words: tuple[str, ...],
    console: bool,
    env: tuple[str, ...],
    cwd: str | None,
    user: str | None,
    timeout: float | None,
) -> int:
    """Run COMMAND in the container NAME, which runs; see "run"."""
    from pyvirt.running.lxc.container import RunningContainer

    _check(words, console, output)
    task = Task(words, env=variables(env), cwd=cwd, user=user, timeout=timeout)
    with RunningContainer.attach(name, store=store()) as running:
        return _run(running, task, console, output)


def _check(words: tuple[str, ...], console: bool, output: Output) -> None:
    if not words and not console:
        raise click.UsageError("Give a COMMAND, or --console for a shell.")
    if console and (output.json or not (sys.stdin.isatty() and sys.stdout.isatty())):
        raise click.UsageError("--console needs a terminal, and no --json.")


def _run(running: RunningContainer, task: Task, console: bool, output: Output) -> int:
    from pyvirt.cli import terminal
    from pyvirt.cli.stream import Kept, Through, stream

    if console:
        return code(terminal.guest(running, task))
    if not output.json:
        return code(stream(running, task, Through(1), Through(2)))
    out, err = Kept(), Kept()
    end = stream(running, task, out, err)
    output.document(
        {
            "container": running.name,
            "command": task.command if isinstance(task.command, str) else list(task.command),
            "exit_code": end.exit_code,
            "signal": end.signal,
            **text("stdout", out.data),
            **text("stderr", err.data),
            "cut": out.cut or err.cut,
            "duration": end.duration,
        }
    )
    return code(end)
