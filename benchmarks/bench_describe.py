"""Descriptions: the options of a machine with many disks, against code written for just that.

    python -m benchmarks.bench_describe [--rounds N]

By hand is a function that knows nothing but this machine, and writes the same words with
f-strings. A description checks each value, finds a place for each device, and writes any other
machine as well; what that costs is a machine's start in thousandths.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from benchmarks.pairs import Row, alternate, below, table, told
from benchmarks.processor import worked
from pyvirt import VM, Disk

DISKS = 100
TARGETS = 256  # of a SCSI controller


def described(count: int) -> list[str]:
    """From nothing to words: the values, their checks, their places, their words."""
    disks = [Disk(f"/images/{number}.qcow2", bus="scsi") for number in range(count)]
    return words_of_disks(VM(name="bench", accel="tcg", memory="1G", disks=disks).argv())


def words_of_disks(argv: list[str]) -> list[str]:
    """From the first -blockdev to the last disk."""
    first = argv.index("-blockdev")
    last = max(at for at, word in enumerate(argv) if word.startswith('{"driver":"scsi-hd"'))
    return argv[first : last + 1]


def by_hand(count: int) -> list[str]:
    """The same words."""
    words = []
    for number in range(count):
        name = f"disk{number}"
        words += [
            "-blockdev",
            f'{{"driver":"qcow2","node-name":"{name}-format","file":{{"driver":"file",'
            f'"node-name":"{name}-file","filename":"/images/{number}.qcow2"}}}}',
            "-device",
            f'{{"driver":"scsi-hd","id":"{name}","bus":"scsi0.0","scsi-id":{number % TARGETS},'
            f'"lun":{number // TARGETS},"drive":"{name}-format"}}',
        ]
    return words


def rows(rounds: int) -> Iterator[Row]:
    """What a description costs, whole and for each device more."""
    small, large = (
        alternate(
            {
                "pyvirt": lambda n=n: worked(lambda: described(n)),
                "hand": lambda n=n: worked(lambda: by_hand(n)),
            },
            rounds,
        )
        for n in (1, DISKS)
    )
    yield below("a machine with one disk", small.median("pyvirt") * 1e3, 5, "ms")
    yield below(f"a machine with {DISKS} disks", large.median("pyvirt") * 1e3, 100, "ms")
    each = (large.median("pyvirt") - small.median("pyvirt")) / (DISKS - 1)
    yield below("  each disk more", each * 1e3, 1, "ms")
    yield told("  pyvirt, to words by hand", f"{large.ratio('pyvirt', 'hand'):.0f} x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    print(table("Descriptions", rows(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
