"""qemu-img and qemu-io themselves, as the oracle of what pyvirt has them do."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIB = 1 << 20


def run(*words: str | Path) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def io(path: Path, *commands: str, format: str = "qcow2") -> None:
    """Write or read patterns; a pattern that is not there fails."""
    words = [word for command in commands for word in ("-c", command)]
    said = run("qemu-io", "-f", format, *words, path)
    assert "failed" not in said, said


def info(path: Path, format: str = "qcow2") -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run("qemu-img", "info", "-f", format, "--output=json", path))
    return told


def sound(path: Path, format: str = "qcow2") -> None:
    """Neither corruptions nor leaks."""
    run("qemu-img", "check", "-q", "-f", format, path)


def image(path: Path, size: str = "64M", *words: str, data: str = "write -P 7 0 4M") -> Path:
    """A qcow2 image that qemu-img made, with some data."""
    run("qemu-img", "create", "-q", "-f", "qcow2", *words, path, size)
    io(path, data)
    return path


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def eventually(true: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + 30
    while not true():
        assert time.monotonic() < limit, f"never: {what}"
        time.sleep(0.01)
