"""An image as QEMU describes it, after it was made or changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from pyvirt.disk.secret import Secret
from pyvirt.errors import ImageError
from pyvirt.fields import frozen
from pyvirt.qemu_img import calls
from pyvirt.qemu_img.call import node
from pyvirt.running.tools.journal import bytes_of
from pyvirt.running.tools.writing import Work


@frozen
class Written:
    """An image that was made or changed, as QEMU then described it; sizes in bytes.

    `size` is the disk in it, `allocated` what its file takes on the host.
    """

    path: Path
    format: str
    size: int
    allocated: int

    def __fspath__(self) -> str:
        return str(self.path)


def rounded(size: int) -> int:
    return -(-size // 512) * 512


def checked(
    work: Work, path: Path, format: str, size: int | None, name: Path | None = None
) -> Written:
    """What is at `path` (and will be at `name`): an image of `format`, of `size` if it is known."""
    made = attrs.evolve(written(work, path, format), path=name or path)
    if size is not None and made.size != rounded(size):
        raise ImageError(made.path, "has another size than it was given", format=format,
                         found=made.size, expected=rounded(size))  # fmt: skip
    return made


def written(work: Work, path: Path, format: str) -> Written:
    info = info_of(work, path, format)
    return Written(path, info["format"], info["virtual-size"], info["actual-size"])


def info_of(work: Work, path: Path, format: str) -> dict[str, Any]:
    image = node(path, format, _NO_KEY if format == "luks" else None, bytes_of(path))
    told: dict[str, Any] = json.loads(work.run(calls.info(image, str(path))))
    return told


#: For what only looks at a header; QEMU wants a word there, and does not use it.
_NO_KEY = Secret("none")
