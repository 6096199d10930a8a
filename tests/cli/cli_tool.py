"""``pyvirt`` as users start it, and looks at what it left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "pyvirt"]


def pyvirt(*words: str | Path, input: bytes | None = b"", **environment: str) -> Any:
    """The end of ``pyvirt WORDS``, with its output as text."""
    said = subprocess.run(
        [*COMMAND, *map(str, words)], input=input, capture_output=True,
        env={**os.environ, **environment}, timeout=100,
    )  # fmt: skip
    said.stdout, said.stderr = said.stdout.decode(), said.stderr.decode()
    return said


def document(*words: str | Path, code: int = 0, **how: Any) -> Any:
    """The one JSON document that ``pyvirt WORDS --json`` prints."""
    said = pyvirt(*words, **how)
    assert said.returncode == code, said.stderr
    return json.loads(said.stdout)


def guests(name: str) -> list[int]:
    """The processes of QEMU that run a VM called `name`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if f"guest={name},debug-threads=on".encode() in words:
            found.append(int(path.parent.name))
    return found


def gone(name: str) -> bool:
    """Whether no QEMU of `name` is left, or is within 20 seconds."""
    for _ in range(1000):
        if not guests(name):
            return True
        time.sleep(0.02)
    return False
