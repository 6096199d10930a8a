"""``pyvirt run``: one command in a guest of its own, or a terminal in it."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import click

from pyvirt.cli.describe import vm_of, vm_options
from pyvirt.cli.output import Output, json_option
from pyvirt.cli.progress import Progress

if TYPE_CHECKING:
    from pyvirt.guest.process import Exit
    from pyvirt.running.vm import RunningVM
    from pyvirt.vm import VM


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
    """  # fmt: skip
    if not words and not console:
        raise click.UsageError("Give a COMMAND, or --console for a shell.")
    if console and (output.json or not (sys.stdin.isatty() and sys.stdout.isatty())):
        raise click.UsageError("--console needs a terminal, and no --json.")
    vm = _with_monitor(vm_of(file, given), qmp)
    how = {"env": _variables(env), "cwd": cwd, "user": user}
    with Progress() as progress:
        began = time.monotonic()
        progress(f"starting {vm.name}")
        with vm.start(progress=progress) as running:
            progress(f"waiting for {vm.name} to boot")
            if console:
                return _console(running, words, how, progress)
            return _run(running, _command(words), how, timeout, output, progress, began)


def _with_monitor(vm: VM, path: str | None) -> VM:
    """The VM with a second monitor that listens at `path`."""
    if path is None:
        return vm
    where = path.replace(",", ",,")
    more = ("-qmp", f"unix:{where},server=on,wait=off")
    return attrs.evolve(vm, arguments=(*vm.arguments, *more))


def _variables(words: Sequence[str]) -> dict[str, str] | None:
    for word in words:
        if "=" not in word:
            raise click.UsageError(f"--env wants NAME=VALUE, got {word!r}.")
    return dict(word.split("=", 1) for word in words) or None


def _command(words: tuple[str, ...]) -> str | tuple[str, ...]:
    return words[0] if len(words) == 1 else words


def _console(
    running: RunningVM, words: tuple[str, ...], how: dict[str, Any], progress: Progress
) -> int:
    from pyvirt.cli import terminal

    if "pyvirt" not in running.vm.channels and not words:
        progress.clear()
        terminal.serial(running)
        return 0
    running.wait_for(agent=True)
    progress.clear()
    return _code(terminal.guest(running, _command(words) if words else ("/bin/sh", "-l"), how))


def _run(
    running: RunningVM,
    command: str | tuple[str, ...],
    how: dict[str, Any],
    timeout: float | None,
    output: Output,
    progress: Progress,
    began: float,
) -> int:
    from pyvirt.cli.stream import Kept, Through, stream

    out = (Kept(), Kept()) if output.json else (Through(1), Through(2))
    running.wait_for(agent=True)
    booted = time.monotonic() - began
    progress.clear()
    end = stream(running, command, how, timeout, *out)
    if output.json:
        output.document(_document(running, command, end, out, booted))
    return _code(end)  # fmt: skip


def _code(end: Exit) -> int:
    return 128 + (end.signal or 0) if end.exit_code is None else end.exit_code


def _document(running: RunningVM, command: Any, end: Exit, kept: Any, booted: float) -> Any:
    accelerator = running.accelerator
    streams: dict[str, Any] = {}
    for name, stream in zip(("stdout", "stderr"), kept, strict=True):
        streams[name] = stream.data.decode("utf-8", "replace")
        if streams[name].encode() != stream.data:
            streams[f"{name}_base64"] = base64.b64encode(stream.data).decode()
    return {
        "command": command if isinstance(command, str) else list(command),
        "exit_code": end.exit_code,
        "signal": end.signal,
        **streams,
        "cut": any(stream.cut for stream in kept),
        "duration": end.duration,
        "ready_after": booted,
        "accelerator": {"name": accelerator.name, "reason": accelerator.reason},
        "qemu": running.capabilities.name,
    }
