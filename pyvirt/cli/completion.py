"""``pyvirt completion``: shells learn the words of the other commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from pyvirt.cli.output import Output, json_option

SHELLS = ("bash", "zsh", "fish")

_WHERE = {
    "bash": 'eval "$(pyvirt completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(pyvirt completion zsh)"   # in ~/.zshrc',
    "fish": "pyvirt completion fish > ~/.config/fish/completions/pyvirt.fish",
}


@click.command("completion", epilog=f"\b\n{chr(10).join(_WHERE.values())}")
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
def command(output: Output, shell: str) -> None:
    """Print what makes SHELL complete the words of pyvirt."""
    from pyvirt.cli.group import group

    found = get_completion_class(shell)
    assert found is not None
    script = found(group, {}, "pyvirt", "_PYVIRT_COMPLETE").source()
    if output.json:
        output.document({"shell": shell, "script": script})
    else:
        click.echo(script)
