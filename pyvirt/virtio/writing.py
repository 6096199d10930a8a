"""Where an export goes: into a file that is open, or one by its name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import IO


def written(file: str | os.PathLike[str] | IO[bytes], parts: Iterable[bytes]) -> None:
    """Write all parts; a file named by its path is replaced."""
    if isinstance(file, str | os.PathLike):
        with open(file, "wb") as out:
            out.writelines(parts)
    else:
        for part in parts:
            file.write(part)
