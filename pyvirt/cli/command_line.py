"""``pyvirt command-line``: what QEMU would be given, and why."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from pyvirt.cli.describe import vm_of, vm_options
from pyvirt.cli.output import Output, json_option

if TYPE_CHECKING:
    from pyvirt.vm import VM


@click.command("command-line")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False))
@click.option("--explain", is_flag=True, help="Say which field made each option.")
@click.option("--save", metavar="FILE", type=click.Path(dir_okay=False),
              help="Write the description to a .toml or .json file as well.")  # fmt: skip
@vm_options
@json_option
def command(
    output: Output, file: str | None, explain: bool, save: str | None, **given: Any
) -> None:
    """Print the command line that QEMU would be given; nothing is started.

    FILE is a description in TOML or JSON; options are put over it. What only a start can
    know stands in angle brackets.
    """
    vm = vm_of(file, given)
    if save is not None:
        vm.save(save)
    if output.json:
        output.document(document(vm))
    elif explain:
        click.echo(str(vm.explain()))
    else:
        click.echo(lines(vm))


def lines(vm: VM) -> str:
    """The command line for a shell, one option on each line."""
    options = [shlex.join(reason.words) for reason in vm.explain()]
    rest = [shlex.quote(word) for word in vm.arguments]
    return " \\\n  ".join([shlex.quote(vm.binary), *options, *rest])


def document(vm: VM) -> dict[str, Any]:
    """The same for programs; `needs` are what a start acquires for what is in brackets."""
    return {
        "argv": vm.argv(),
        "options": [{"field": one.field, "words": list(one.words)} for one in vm.explain()],
        "needs": [{"type": type(one).__name__, "name": one.name} for one in vm.plan().needs],
    }
