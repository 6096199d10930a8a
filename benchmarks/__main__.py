"""Run every benchmark of this folder, or those that are named: ``python -m benchmarks qmp``.

    python -m benchmarks --readme README.md --devices results.json

Each module ``bench_NAME`` has ``rows(rounds)``, and ``long_rows(rounds)`` for what takes minutes
and is only run with ``--long``. They run one after another, so that none disturbs another, and
what fails does not stop the rest. All rows are written to one table, a Markdown file; with
``--readme`` also into a file that has a place for them, see `benchmarks.paste`. Headline figures of
virtual devices go there from what ``pyvirt bench all --output`` kept.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import traceback
from collections.abc import Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path

from attrs import frozen

from benchmarks import paste
from benchmarks.pairs import Row, table
from pyvirt.bench import Results

NAMES = sorted(
    path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py")
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds (default: 7)")
    parser.add_argument("--long", action="store_true", help="run what takes minutes as well")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks.md"),
                        metavar="FILE", help="where the table goes (default: %(default)s)")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="paste it into this as well")
    parser.add_argument("--devices", type=Path, metavar="RESULTS",
                        help="paste these results of `pyvirt bench`; run only what is named")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    if arguments.devices and not arguments.readme:
        parser.error("--devices goes with --readme")
    return measure(arguments)


def measure(arguments: argparse.Namespace) -> int:
    """How many benchmarks failed; what the others gave is written all the same."""
    print(machine(), flush=True)
    names = [] if arguments.devices and not arguments.names else arguments.names or NAMES
    done = [run(name, arguments.rounds, arguments.long) for name in names]
    cells = chain.from_iterable(one.cells() for one in done)
    text = f"On {machine()}.\n\n{paste.markdown(('', '', 'target', ''), cells)}"
    if names:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")
        print(f"\nThe table is in {arguments.output}", flush=True)
    if arguments.devices:
        paste.put(arguments.readme, "devices", paste.devices(Results.load(arguments.devices)))
    if arguments.readme and names:
        paste.put(arguments.readme, "pyvirt", text)
    return sum(one.failed for one in done)


@frozen
class Done:
    """What one benchmark gave."""

    title: str
    rows: tuple[Row, ...]
    failed: bool

    def cells(self) -> Iterator[tuple[str, ...]]:
        """Its lines of the one table."""
        marks = {True: "met", False: "**missed**", None: ""}
        yield f"**{self.title}**", "", "", "**failed**" if self.failed else ""
        for row in self.rows:
            yield row.what, row.value, row.target, marks[row.met]


def run(name: str, rounds: int, long: bool = False) -> Done:
    """Run one benchmark and print its rows."""
    module = import_module(f"benchmarks.bench_{name}")
    parts = [module.rows] + ([module.long_rows] if long and hasattr(module, "long_rows") else [])
    title = str(module.__doc__).splitlines()[0]
    found: list[Row] = []
    failed = False
    try:
        for row in chain.from_iterable(part(rounds) for part in parts):
            found.append(row)
            print(f"  {name}: {row.what}", file=sys.stderr, flush=True)
    except Exception:
        failed = True
        traceback.print_exc()
    print(f"\n{table(title, found)}" if found else f"\n{title}: nothing", flush=True)
    return Done(title, tuple(found), failed)


def machine() -> str:
    """Where this ran, for whoever reads the table."""
    info = Path("/proc/cpuinfo").read_text(errors="replace")
    models = [line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line]
    model = models[0] if models else platform.machine()
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{len(models)} x {model}, Linux {platform.release()}, load {load}"


if __name__ == "__main__":
    sys.exit(main())
