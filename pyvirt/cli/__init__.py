"""The command line. `main` is all that is here, so that a word of help costs little."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``pyvirt`` with `arguments` (by default those of the process); its exit code."""
    from pyvirt.cli.group import run

    return run(arguments)
