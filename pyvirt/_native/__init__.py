"""Compiled parts: extension modules over csrc/, and static programs under `bin`."""

from __future__ import annotations

from pathlib import Path


def program(name: str) -> Path:
    """The path of the bundled static executable *name*."""
    return Path(__file__).with_name("bin") / name
