"""Text on a screen, read by tesseract where it is installed."""

from __future__ import annotations

import shutil
import subprocess

from pyvirt.errors import StartError, UnsupportedError
from pyvirt.running.screen import Screenshot

_PROGRAM = "tesseract"


def installed() -> bool:
    """Whether this host has the reader."""
    return shutil.which(_PROGRAM) is not None


def find() -> str:
    """The reader's path; `UnsupportedError` where none is installed."""
    path = shutil.which(_PROGRAM)
    if path is None:
        raise UnsupportedError(_PROGRAM, "this host", "install the package tesseract-ocr")
    return path


def read(picture: Screenshot) -> str:
    """The text in `picture`. Screens have 8 by 16 pixel letters, hence the stated density."""
    words = [find(), "stdin", "stdout", "--psm", "6", "--dpi", "70"]
    done = subprocess.run(words, input=picture.png, capture_output=True, check=False)
    if done.returncode != 0:
        raise StartError(_PROGRAM, f"exit code {done.returncode}", done.stderr.decode().strip())
    return done.stdout.decode("utf-8", "replace")
