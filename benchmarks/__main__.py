"""Run every benchmark of this folder, or those that are named: ``python -m benchmarks qmp``.

Each module ``bench_NAME`` has ``rows(rounds)``, and ``long_rows(rounds)`` for what takes minutes
and is only run with ``--long``. They run one after another, so that none disturbs another, and
what fails does not stop the rest.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import traceback
from importlib import import_module
from itertools import chain
from pathlib import Path

from benchmarks.pairs import Row, table

NAMES = sorted(
    path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py")
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, help=f"of {', '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=7, help="alternating rounds (default: 7)")
    parser.add_argument("--long", action="store_true", help="run what takes minutes as well")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    print(machine(), flush=True)
    return sum([run(name, arguments.rounds, arguments.long) for name in arguments.names])


def run(name: str, rounds: int, long: bool = False) -> int:
    """Run one benchmark and print its rows; 1 if it failed."""
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
    return int(failed)


def machine() -> str:
    """Where this ran, for whoever reads the table."""
    info = Path("/proc/cpuinfo").read_text(errors="replace")
    models = [line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line]
    model = models[0] if models else platform.machine()
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"{len(models)} x {model}, Linux {platform.release()}, load {load}"


if __name__ == "__main__":
    sys.exit(main())
