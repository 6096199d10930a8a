"""Disks that can be told apart, and how a guest finds them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from pyvirt import RunningVM

SIZE = 1 << 20

# For each block device: its name, the first line on it, and the drivers on its way to it.
_LIST = """
for block in /sys/block/*; do
    name=${block##*/}
    case $name in loop*|ram*) continue;; esac
    [ -b "/dev/$name" ] || continue
    path=$(readlink -f $block) drivers=
    while [ -n "$path" ]; do
        [ -e $path/driver ] && drivers="$drivers $(basename $(readlink $path/driver))"
        path=${path%/*}
    done
    echo "$(head -c 64 /dev/$name 2>/dev/null | head -n 1)|$name|$drivers"
done
"""


@frozen
class Found:
    """A block device of the guest: its name, and the drivers between it and the processor."""

    name: str
    drivers: tuple[str, ...]


def image(folder: Path, name: str, size: int = SIZE) -> Path:
    """An image that says who it is."""
    path = folder / f"{name}.img"
    path.write_bytes(f"I am {name}\n".encode().ljust(512, b"\0").ljust(size, b"\0"))
    return path


def found(guest: RunningVM) -> Mapping[str, Found]:
    """The block devices of the guest by what they say they are; without those that are mute."""
    lines = guest.run(_LIST, timeout=60).check().stdout.splitlines()
    rows = [line.split("|") for line in lines if line.startswith("I am ")]
    return {words[5:]: Found(name, tuple(drivers.split())) for words, name, drivers in rows}


def write(guest: RunningVM, name: str, word: str) -> None:
    """Have the guest write `word` to sector 8 of block device `name`, and wait for it."""
    command = f"echo -n {word} | dd of=/dev/{name} bs=512 seek=8 conv=fsync,notrunc"
    guest.run(command, timeout=60).check()


def written(path: Path, size: int) -> str:
    """What is in sector 8 of an image."""
    with path.open("rb") as file:
        file.seek(8 * 512)
        return file.read(size).decode("ascii", "replace")
