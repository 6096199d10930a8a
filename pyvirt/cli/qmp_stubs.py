"""``pyvirt qmp-stubs``: the commands of a QEMU for editors and type checkers."""

from __future__ import annotations

from pathlib import Path

import click

from pyvirt.cli.output import Output, json_option


@click.command("qmp-stubs")
@click.argument("binary", default="qemu-system-x86_64")
@click.option("-o", "--output", "target", metavar="FILE", type=click.Path(dir_okay=False),
              help="Where to write it; standard output by default.")  # fmt: skip
@json_option
def command(output: Output, binary: str, target: str | None) -> None:
    """Write a .pyi, so that editors and mypy know the commands of a QEMU.

    BINARY is a QEMU, qemu-system-x86_64 by default. What it is asked once is remembered.
    """
    from pyvirt.qmp.stubs import stub
    from pyvirt.running.host.probe import probe

    capabilities = probe(binary)
    module = Path(target).stem if target is not None else "qemu_commands"
    text = stub(capabilities.schema, capabilities.name, module)
    if target is not None:
        Path(target).write_text(text)
    if output.json:
        said = {"file": str(Path(target).absolute())} if target is not None else {"stub": text}
        commands = len(capabilities.schema.commands)
        output.document({"qemu": capabilities.name, "commands": commands, **said})
    elif target is None:
        click.echo(text, nl=False)
