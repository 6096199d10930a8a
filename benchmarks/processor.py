"""Processor time of this process and of programs: other work on the machine hardly stretches it.

It counts all threads, and leaves out whatever a program waits for.
"""

from __future__ import annotations

import mmap
import resource
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.pairs import Timed


def worked(act: Callable[[], Any]) -> Timed:
    """What `act` takes in this process."""
    begun = time.process_time()
    result = act()
    return Timed(time.process_time() - begun, result)


def with_warm_memory(size: int, act: Callable[[], Any]) -> Timed:
    """The same with `size` bytes of the kernel's free memory touched before.

    A virtual machine's host may take free memory away, and takes long to bring it back.
    """
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, size, mmap.PAGESIZE):
            memory[at] = 1
    return worked(act)


def children(act: Callable[[], Any]) -> Timed:
    """What the programs take that `act` starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = act()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Timed(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, result)


def program(*words: str | Path) -> Timed:
    """What a program takes and prints."""
    return children(lambda: output(*words))


def output(*words: str | Path) -> str:
    said = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, text=True)
    assert said.returncode == 0, words
    return said.stdout


def patient(*words: str | Path, excuse: str, tries: int = 40) -> None:
    """Run a program, and again as long as it fails only with the words of `excuse`."""
    for _ in range(tries):
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
        if done.returncode == 0 or excuse not in done.stderr:
            break
        time.sleep(0.1)
    assert done.returncode == 0, f"{words}: {done.stderr}"


def undisturbed(act: Callable[[], Any]) -> float:
    """Seconds by the clock, less those that this thread was ready and others had the processors.

    See schedstat in proc(5). What the thread waited for a lock still counts.
    """
    path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    before, begun = int(path.read_text().split()[1]), time.perf_counter_ns()
    act()
    took = time.perf_counter_ns() - begun
    return (took - int(path.read_text().split()[1]) + before) / 1e9
