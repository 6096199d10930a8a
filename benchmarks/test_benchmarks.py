"""Each benchmark of this folder as a test: its work is equal on all sides, its rows are told.

The rows with their ratios are the `extra_info` of pytest-benchmark's reports and JSON. A target
that is missed is a warning: how fast a machine is on this day is no fault of the code.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from itertools import chain
from typing import Any

import attrs
import pytest

from benchmarks.__main__ import NAMES

pytest.importorskip("pytest_benchmark")

pytestmark = pytest.mark.timeout(7200)


@pytest.mark.parametrize("name", NAMES)
def test_benchmark(name: str, benchmark: Any, pytestconfig: pytest.Config) -> None:
    module = import_module(f"benchmarks.bench_{name}")
    rounds, long = pytestconfig.getoption("rounds"), pytestconfig.getoption("long")
    parts = [module.rows] + ([module.long_rows] if long and hasattr(module, "long_rows") else [])
    benchmark.group = str(module.__doc__).splitlines()[0]
    rows = benchmark.pedantic(lambda: list(chain.from_iterable(part(rounds) for part in parts)))
    assert rows, "it measured nothing"
    benchmark.extra_info["rows"] = [attrs.asdict(row) for row in rows]
    for row in rows:
        if row.met is False:
            warnings.warn(f"{name}: {row.what} is {row.value}, target {row.target}", stacklevel=1)
