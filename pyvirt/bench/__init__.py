"""Benchmarks of virtual hardware in real guests: describe a matrix, run it, read the results."""

from __future__ import annotations

from pyvirt.bench.results import Failure, Results, Row

__all__ = ["Failure", "Results", "Row"]
