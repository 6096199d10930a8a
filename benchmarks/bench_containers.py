"""Containers: from nothing to the first answer, and commands in one that runs, against lxc's tools.

    python -m benchmarks.bench_containers [--rounds N]

By hand is what somebody would type who knows how: the configuration that pyvirt writes too, over
the same tree of a busybox and with the same limits and users, in a fresh directory; then
`lxc-start` and `lxc-attach`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.pairs import Pairs, Row, Timed, alternate, below, table, told
from pyvirt import Container, RunningContainer
from pyvirt.running.lxc.store import Store

DESCRIBED = Container(memory="64M", pids=64)
CROWD, THREADS = 50, 8


def by_pyvirt(store: Store) -> Timed:
    """Describe, start, run, and after the clock has stopped, end."""
    begun = time.perf_counter()
    described = Container(memory="64M", pids=64)
    with RunningContainer.start(described, store=store) as running:
        code = running.run(["true"]).exit_code
        return Timed(time.perf_counter() - begun, code)


class ByHand:
    """The same with lxc's tools; `model` is a configuration of pyvirt's to take over."""

    def __init__(self, store: Store, model: RunningContainer) -> None:
        self.store, self.model, self.number = store, model, 0
        self.config = model.config
        self.group = next(
            line.split(" = ")[1].removesuffix("/payload")
            for line in self.config.splitlines()
            if line.startswith("lxc.cgroup.dir.container = ")
        )

    def __call__(self) -> Timed:
        begun = time.perf_counter()
        name, place = self._made()
        try:
            tool("lxc-start", "-P", str(self.store.root), "-n", name, "-d")
            code = tool("lxc-attach", "-P", str(self.store.root), "-n", name, "--", "/bin/true")
            took = time.perf_counter() - begun
            tool("lxc-stop", "-P", str(self.store.root), "-n", name, "-k")
        except BaseException:
            print((place / "log").read_text()[-3000:])
            raise
        finally:
            self._removed(name, place)
        return Timed(took, code)

    def _made(self) -> tuple[str, Path]:
        self.number += 1
        name = f"hand{os.getpid()}x{self.number}"
        place = self.store.root / name
        place.mkdir()
        place.chmod(0o711)
        shutil.copy(self.model.place / "seccomp", place)
        for part in ("rootfs", "work"):  # the two that an overlay writes to
            (place / part).mkdir()
            owner = (self.model.place / part).stat()
            os.chown(place / part, owner.st_uid, owner.st_gid)
        text = self.config.replace(self.group, f"pyvirt-{name}")
        text = text.replace(str(self.model.place), str(place)).replace(self.model.name, name)
        (place / "config").write_text(text)
        return name, place

    def _removed(self, name: str, place: Path) -> None:
        shutil.rmtree(place)
        for mount in Path("/sys/fs/cgroup").iterdir():
            for group in sorted(mount.glob(f"pyvirt-{name}/**/"), reverse=True):
                with_patience(group)


def with_patience(group: Path) -> None:
    """Remove a group that a dying process may still be in for a moment."""
    for _ in range(200):
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)


def tool(*words: str) -> int:
    """The exit code of one of lxc's tools, which must be 0."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.returncode


@contextmanager
def new_store() -> Iterator[Store]:
    root = Path(tempfile.mkdtemp(prefix="pyvirt-bench-"))
    root.chmod(0o711)
    try:
        yield Store(root)
    finally:
        shutil.rmtree(root)


def starts(store: Store, rounds: int) -> Pairs:
    """Nothing to the first answer, both ways."""
    with RunningContainer.start(DESCRIBED, store=store) as model:
        hand = ByHand(store, model)
        return alternate({"pyvirt": lambda: by_pyvirt(store), "lxc": hand}, rounds)


def commands(store: Store, rounds: int) -> Pairs:
    """`true` in a container that runs, both ways; 20 a round."""
    with RunningContainer.start(DESCRIBED, store=store) as running:
        running.ping()
        words = ("lxc-attach", "-P", str(store.root), "-n", running.name, "--", "/bin/true")

        def ours() -> list[int]:
            return [running.run(["true"]).exit_code or 0 for _ in range(20)]

        def theirs() -> list[int]:
            return [tool(*words) for _ in range(20)]

        return alternate({"pyvirt": ours, "lxc": theirs}, rounds)


def crowd(store: Store) -> float:
    """Seconds for many containers from several threads: each started, asked, destroyed."""

    def one(number: int) -> str:
        with RunningContainer.start(DESCRIBED, store=store, timeout=120) as running:
            return str(running.run(["echo", str(number)]).stdout)

    begun = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(one, range(CROWD))) == [f"{n}\n" for n in range(CROWD)]
    took = time.perf_counter() - begun
    left = [path for mount in Path("/sys/fs/cgroup").iterdir() for path in mount.glob("pyvirt-c*")]
    assert store.names() == [], store.names()
    assert not any(place.name in str(path) for path in left for place in store.root.iterdir())
    return took


def rows(rounds: int) -> Iterator[Row]:
    if os.geteuid() != 0 or shutil.which("lxc-start") is None:
        yield told("needs root and lxc's tools (Debian: lxc)", "skipped")
        return
    with new_store() as store:
        begun = starts(store, rounds)
        yield below("describe to the first answer / lxc-start and lxc-attach",
                    begun.ratio("pyvirt", "lxc"), 1.2)  # fmt: skip
        yield told("  pyvirt, median", f"{begun.median('pyvirt') * 1e3:.0f} ms")
        yield told("  lxc's tools, median", f"{begun.median('lxc') * 1e3:.0f} ms")
        ran = commands(store, rounds)
        yield below("true in one that runs / lxc-attach", ran.ratio("pyvirt", "lxc"), 1.3)
        yield told("  pyvirt, median", f"{ran.median('pyvirt') / 20 * 1e3:.2f} ms")
        yield told("  lxc-attach, median", f"{ran.median('lxc') / 20 * 1e3:.2f} ms")
        yield told(f"{CROWD} from {THREADS} threads, to the last end", f"{crowd(store):.1f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    print(table(str(__doc__).splitlines()[0], rows(parser.parse_args().rounds)))
