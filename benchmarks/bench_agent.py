"""Acting inside a guest: pyvirt's agent against its targets and QEMU's guest agent.

Both answer in one booted default guest, and take turns.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.pairs import Pairs, Row, above, alternate, below, table, told
from pyvirt import VM, Guest
from pyvirt.guest.carrier import Carrier

MIB = 1 << 20
PINGS, RUNS = 50, 10
FILE, SLOW_FILE = 32 * MIB, 2 * MIB  # what QEMU's agent is given, at a few MiB a second
OUTPUT = 1 << 30
LIMIT = 600.0  # seconds that anything may take at all


def ping(carrier: Carrier) -> int:
    """Many pings, one after another."""
    return sum(carrier.ping().result(LIMIT) > 0 for _ in range(PINGS))


def run(carrier: Carrier) -> int:
    """Many commands that do nothing, one after another."""
    return sum(carrier.run("true").result(LIMIT).ok for _ in range(RUNS))


def put(carrier: Carrier, data: bytes) -> str:
    """A file into the guest; its hash there."""
    carrier.put(data, "/tmp/put").result(LIMIT)
    return digest(data)


def get(carrier: Carrier, path: str) -> str:
    """A file out of the guest; its hash here."""
    back = io.BytesIO()
    carrier.get(path, back).result(LIMIT)
    return digest(back.getvalue())


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def per_call(pairs: Pairs, side: str, calls: int) -> float:
    """Milliseconds of one call."""
    return pairs.median(side) / calls * 1e3


def calls(native: Carrier, qga: Carrier, rounds: int) -> Iterator[Row]:
    """Short calls."""
    pings = alternate({"native": lambda: ping(native), "qga": lambda: ping(qga)}, rounds)
    yield below("ping", per_call(pings, "native", PINGS), 0.5, "ms")
    yield told("  QEMU's agent, to ours", f"{pings.ratio('qga', 'native'):.1f} x")
    runs = alternate({"native": lambda: run(native), "qga": lambda: run(qga)}, rounds)
    yield below('run("true")', per_call(runs, "native", RUNS), 15, "ms")
    yield told("  QEMU's agent, to ours", f"{runs.ratio('qga', 'native'):.1f} x")


def files(native: Carrier, qga: Carrier, rounds: int) -> Iterator[Row]:
    """Files, each side as much as it can bear."""
    big, small = os.urandom(FILE), os.urandom(SLOW_FILE)
    native.put(big, "/tmp/big").result(LIMIT)
    native.put(small, "/tmp/small").result(LIMIT)
    for name, sides in {
        "put": {"native": lambda: put(native, big), "qga": lambda: put(qga, small)},
        "get": {"native": lambda: get(native, "/tmp/big"), "qga": lambda: get(qga, "/tmp/small")},
    }.items():
        pairs = alternate(sides, rounds, equal=False)
        assert pairs.results == {"native": digest(big), "qga": digest(small)}
        check = native.run(["sha256sum", "/tmp/put"]).result(LIMIT).stdout.split()[0]
        assert check in (digest(big), digest(small))
        speed = FILE / MIB / pairs.median("native")
        slow = SLOW_FILE / MIB / pairs.median("qga")
        yield above(f"{name} a file", speed, 50, "MiB/s")
        yield told("  QEMU's agent", f"{slow:.1f} MiB/s")


def output(native: Carrier, qemu: int) -> Iterator[Row]:
    """A gigabyte of output, counted and hashed as it comes; `qemu` is QEMU's process id."""
    seen, whole = 0, hashlib.sha256()
    before, there = peak(os.getpid(), anew=True), peak(qemu, anew=True)

    def sink(data: bytes) -> None:
        nonlocal seen
        seen += len(data)
        whole.update(data)

    words = ["dd", "if=/dev/zero", "bs=256k", f"count={OUTPUT >> 18}"]
    result = native.run(words, stdout=sink).result(LIMIT).check()
    zeros = hashlib.sha256()
    for _ in range(OUTPUT // MIB):
        zeros.update(bytes(MIB))
    assert (seen, whole.digest()) == (OUTPUT, zeros.digest())
    yield told("1 GiB of output", f"{OUTPUT / MIB / result.duration:.0f} MiB/s")
    yield below("  memory it took here", (peak(os.getpid()) - before) / MIB, 16, "MiB")
    yield below("  memory it took in QEMU", (peak(qemu) - there) / MIB, 96, "MiB")


def peak(pid: int, *, anew: bool = False) -> int:
    """Most memory that a process had, in bytes; counted from now on if `anew`."""
    if anew:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # see proc(5)
    words = Path(f"/proc/{pid}/status").read_text().split()
    return int(words[words.index("VmHWM:") + 1]) << 10


def rows(rounds: int) -> Iterator[Row]:
    """Everything that was promised of acting inside a guest."""
    with VM(name="bench", memory="512M", boot=Guest(qga=True)).start() as running:
        native, qga = running._engine.carriers
        for carrier in (native, qga):
            carrier.ready.result(LIMIT)
        yield from output(native, running.pid)
        yield from calls(native, qga, rounds)
        yield from files(native, qga, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    print(table("Inside a guest", rows(parser.parse_args().rounds)))


if __name__ == "__main__":
    main()
