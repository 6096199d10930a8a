"""``pytest benchmarks --benchmark-only``: every benchmark of this folder, by pytest-benchmark."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=3, help="alternating rounds of each benchmark")
    parser.addoption("--long", action="store_true", help="run what takes minutes as well")
