"""``pyvirt run``: one command in a guest of its own, or a terminal in it."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from attrs import frozen

from pyvirt.cli.describe import vm_of, vm_options
from pyvirt.cli.output import Output, json_option
from pyvirt.cli.progress import Progress
from pyvirt.running.rings.findable import findable, listening

if TYPE_CHECKING:
    from pyvirt.guest.process import Exit
    from pyvirt.running.vm import RunningVM


@frozen
class Task:
    """What is run in the guest: words, and how."""

    words: tuple[str, ...]
    env: dict[str, str] | None = None
    cwd: str | None = None
    user: str | None = None
    timeout: float | None = None

    @property
    def command(self) -> str | tuple[str, ...]:
        """One word is for a shell; without words it is a shell."""
        return self.words[0] if len(self.words) == 1 else self.words or ("/bin/sh", "-l")


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.argument("words", nargs=-1, metavar="COMMAND...")
@click.option(
    "--vm",
    "file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="A description of the VM, TOML or JSON; options are put over it.",
)
@click.option(
    "-t", "--console", is_flag=True, help="Give COMMAND (by default a shell) this terminal."
)
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Set a variable of COMMAND.")
@click.option("--cwd", metavar="PATH", help="Where in the guest COMMAND runs.")
@click.option("--user", metavar="NAME", help="Who in the guest runs COMMAND.")
@click.option("--timeout", type=float, metavar="SECONDS", help="End COMMAND after so many seconds.")
@click.option(
    "--qmp",
    metavar="SOCKET",
    type=click.Path(),
    help='Let "pyvirt qmp SOCKET" talk to this QEMU meanwhile.',
)
@vm_options
@json_option
def command(
    output: Output,
    words: tuple[str, ...],
    file: str | None,
    console: bool,
    qmp: str | None,
    env: tuple[str, ...],
    cwd: str | None,
    user: str | None,
    timeout: float | None,
    **given: Any,
) -> int:
    """Run COMMAND in a fresh guest, or open a terminal in it.

    One word is run by a shell ("uname -r | wc -c"), several as they are. Its input and
    output are those of pyvirt, and so is its exit code (128 and the signal's number when one
    ended it). The guest is gone afterwards. With --console and a VM that boots something
    else than the default guest, the terminal is its serial port; Ctrl-] leaves it.
    """
    if not words and not console:
        raise click.UsageError("Give a COMMAND, or --console for a shell.")
    if console and (output.json or not (sys.stdin.isatty() and sys.stdout.isatty())):
        raise click.UsageError("--console needs a terminal, and no --json.")
    vm = vm_of(file, given)
    if qmp is not None:
        vm = listening(vm, qmp)
    task = Task(words, env=variables(env), cwd=cwd, user=user, timeout=timeout)
    with Progress() as progress, findable(vm) as vm:
        began = time.monotonic()
        progress(f"starting {vm.name}")
        with vm.start(progress=progress) as running:
            progress(f"waiting for {vm.name} to boot")
            if console:
                return _console(running, task, progress)
            running.wait_for(agent=True)
            progress.clear()
            return _run(running, task, output, time.monotonic() - began)


def variables(words: Sequence[str]) -> dict[str, str] | None:
    """What ``--env`` said, again and again."""
    for word in words:
        if "=" not in word:
            raise click.UsageError(f"--env wants NAME=VALUE, got {word!r}.")
    return dict(word.split("=", 1) for word in words) or None


def _console(running: RunningVM, task: Task, progress: Progress) -> int:
    from pyvirt.cli import terminal

    if "pyvirt" not in running.vm.channels and not task.words:
        progress.clear()
        terminal.serial(running)
        return 0
    running.wait_for(agent=True)
    progress.clear()
    return code(terminal.guest(running, task))


def _run(running: RunningVM, task: Task, output: Output, booted: float) -> int:
    """Its exit code. The agent answered `booted` seconds after the start began."""
    from pyvirt.cli.stream import Kept, Through, stream

    if not output.json:
        return code(stream(running, task, Through(1), Through(2)))
    out, err = Kept(), Kept()
    end = stream(running, task, out, err)
    output.document(
        {
            "command": task.command if isinstance(task.command, str) else list(task.command),
            "exit_code": end.exit_code,
            "signal": end.signal,
            **text("stdout", out.data),
            **text("stderr", err.data),
            "cut": out.cut or err.cut,
            "duration": end.duration,
            "ready_after": booted,
            "accelerator": {
                "name": running.accelerator.name,
                "reason": running.accelerator.reason,
            },
            "qemu": running.capabilities.name,
        }
    )
    return code(end)


def code(end: Exit) -> int:
    """The exit code with which pyvirt tells how a command ended."""
    return 128 + (end.signal or 0) if end.exit_code is None else end.exit_code


def text(name: str, data: bytes | bytearray) -> dict[str, str]:
    """Output as text; where that loses something, in base64 too."""
    text = data.decode("utf-8", "replace")
    if text.encode() == data:
        return {name: text}
    return {name: text, f"{name}_base64": base64.b64encode(data).decode()}
