"""``make demo``: a real guest, driven by the very lines that are shown.

`story` is ordinary Python. It is run one statement after the other, each printed before what
it prints itself, with the time it took.
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

import click
from attrs import frozen

from pyvirt.cli.output import sentence
from pyvirt.cli.progress import Progress
from pyvirt.devices import StdVga
from pyvirt.disk import Disk
from pyvirt.nic import Nic
from pyvirt.vm import VM

#: Seconds from which on a time is worth showing.
NOTABLE = 0.005


def story(folder: Path, progress: Progress) -> None:
    """What is shown; every statement is run as it stands."""
    # A machine is a value. Nothing runs yet.
    vm = VM(memory="512M", cpus=2, nics=[Nic()], video=StdVga())
    print(*vm.explain().of("nics"), sep="\n")

    # Started, it boots the default guest: this host's own Linux, and pyvirt's agent.
    running = vm.start(progress=progress)
    print(running)
    print(running.run("uname -srm && nproc").stdout)

    # Commands come back whole: output, exit code or signal, time.
    print(running.run(["sh", "-c", "echo well; echo broken >&2; exit 3"]))
    print(f"{running.ping() * 1000:.2f} ms to the agent and back")

    # A disk made by qemu-img is plugged while the guest runs.
    image = folder / "data.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "64M"], check=True)
    disk = running.plug(Disk(image))
    running.run("until [ -b /dev/vda ]; do sleep 0.01; done", timeout=10)
    script = "mke2fs /dev/vda >/dev/null; mkdir /data; mount -t ext2 /dev/vda /data; df -h /data"
    print(running.run(script, check=True).stdout)

    # QMP: every command of this very QEMU, completed, documented, and checked before it is sent.
    print(running.qmp.block_resize.__doc__)
    print([block["qdev"] for block in running.qmp.query_block()])

    # Files go in and come out.
    data = bytes(range(256)) * (32 << 10)
    print(running.put(data, "/data/file"), "bytes in")
    print(running.get("/data/file", folder / "back"), "bytes out")
    print("unchanged:", (folder / "back").read_bytes() == data)

    # Live figures, from QEMU and from the guest.
    running.run("sync", check=True)
    block, card = running.block_statistics()[disk], running.network_statistics()["eth0"]
    print(f"{disk}: {block['wr_bytes']} bytes written in {block['wr_operations']} operations")
    print(f"eth0: {card.sent} bytes sent in {card.sent_packets} packets")
    used = running.usage()
    print(f"QEMU: {used.user + used.system:.1f} s of CPU, {used.resident >> 20} MiB of memory")

    # The disk goes, and the guest was asked first; then the guest powers off.
    running.run("umount /data", check=True)
    running.unplug(disk)
    print(running.screenshot())
    print(running.shutdown())


@frozen
class Statement:
    """A statement of the story: the comment above it, its text, and its code."""

    comment: str
    text: str
    code: CodeType


def statements(function: Any) -> Iterator[Statement]:
    """The statements of a function, but for its docstring."""
    source = textwrap.dedent(inspect.getsource(function))
    lines = source.splitlines()
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef)
    end = definition.body[0].end_lineno or 0
    for node in definition.body[1:]:
        between = lines[end : node.lineno - 1]
        comment = " ".join(line.strip().lstrip("# ") for line in between if line.strip())
        end = node.end_lineno or node.lineno
        text = textwrap.dedent("\n".join(lines[node.lineno - 1 : end]))
        code = compile(ast.Module([node], []), f"<{function.__name__}>", "exec")
        yield Statement(comment, text, code)


def show(told: Sequence[Statement], names: dict[str, Any]) -> None:
    """Run statements, each printed with what it prints and with the time it takes."""
    for statement in told:
        if statement.comment:
            click.echo("\n" + click.style(statement.comment, bold=True))
        began = time.monotonic()
        click.echo(click.style(_prompted(statement.text), fg="cyan"))
        exec(statement.code, names)
        taken = time.monotonic() - began
        if taken >= NOTABLE:
            click.echo(click.style(f"    {taken:.2f} s", dim=True))


def main() -> int:
    """Tell the story; the exit code."""
    began = time.monotonic()
    progress = Progress()
    with tempfile.TemporaryDirectory(prefix="pyvirt-demo-") as folder:
        names = {**globals(), "folder": Path(folder), "progress": progress, "print": _print}
        try:
            show(list(statements(story)), names)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            return 130
        except Exception as error:
            click.echo(f"The demo ended early: {sentence(error)}", err=True)
            click.echo("pyvirt doctor says what this host lacks.", err=True)
            return 1
        finally:
            progress.clear()
            if "running" in names:
                names["running"].close()
    click.echo(f"\nAll of that took {time.monotonic() - began:.1f} s, and nothing is left of it.")
    return 0


def _prompted(text: str) -> str:
    """A statement as Python's own prompt shows it."""
    first, *rest = text.splitlines()
    return "\n".join([f">>> {first}", *(f"... {line}" for line in rest)])


def _print(*values: Any, sep: str = " ") -> None:
    click.echo(sep.join(str(value) for value in values).rstrip("\n"))


if __name__ == "__main__":
    sys.exit(main())
