"""Benchmarks of virtual hardware in real guests: describe a matrix, run it, read the results.

    from pyvirt import bench
    results = bench.run(bench.disk.headline())
    print(results)
"""

from __future__ import annotations

from pyvirt.bench import disk, net
from pyvirt.bench.disk import DiskPoint
from pyvirt.bench.fio import Fio
from pyvirt.bench.iperf import Iperf, RoundTrip
from pyvirt.bench.matrix import Matrix
from pyvirt.bench.net import NetPoint
from pyvirt.bench.place import Place
from pyvirt.bench.results import Failure, Results, Row
from pyvirt.bench.run import Progress, run

__all__ = [
    "DiskPoint",
    "Failure",
    "Fio",
    "Iperf",
    "Matrix",
    "NetPoint",
    "Place",
    "Progress",
    "Results",
    "RoundTrip",
    "Row",
    "disk",
    "net",
    "run",
]
