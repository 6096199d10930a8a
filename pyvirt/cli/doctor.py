"""``pyvirt doctor``: what this host has, and what to do about the rest."""

from __future__ import annotations

import textwrap

import click
from attrs import asdict

from pyvirt.cli.checks import Finding, findings
from pyvirt.cli.output import Output, json_option

_COLOURS = {"ok": "green", "limited": "yellow", "missing": "red"}
_INDENT = 25
_WIDTH = 100


@click.command("doctor")
@json_option
def command(output: Output) -> int:
    """Say what this host has for guests, and how to get what it lacks.

    "limited" is what some VMs would miss; "missing" keeps guests from starting. The exit
    code is 1 when something is missing, else 0.
    """
    found = []
    for finding in findings():
        found.append(finding)
        if not output.json:
            click.echo(text(finding))
    able = not any(finding.needed for finding in found)
    if output.json:
        output.document({"able": able, "findings": [asdict(finding) for finding in found]})
    else:
        verdict = "Guests start here." if able else "No guest starts here yet: see what is missing."
        click.echo(f"\n{verdict}")
    return 0 if able else 1


def text(finding: Finding) -> str:
    """A finding in a line, or a few where it is long; the fix on one of its own."""
    state = click.style(f"{finding.state:8}", fg=_COLOURS[finding.state])
    gap = " " * _INDENT
    words = textwrap.wrap(finding.words, _WIDTH - _INDENT, break_on_hyphens=False) or [""]
    lines = [f"{finding.about:16} {state}{words[0]}", *(gap + word for word in words[1:])]
    if finding.fix:
        lines.append(f"{gap}fix: {finding.fix}")
    return "\n".join(lines)
