"""Temporary directories go with their process, whatever ends it, and nothing else goes."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from pyvirt._native import program
from pyvirt.running.children.keeper import temporary_directory

LIMIT = 20.0


def removed(path: Path) -> bool:
    """Whether *path* goes within LIMIT seconds."""
    for _ in range(int(LIMIT / 0.02)):
        if not path.exists():
            return True
        time.sleep(0.02)
    return False


def owner(body: str) -> subprocess.Popen[str]:
    """Another Python, which has printed the path of its temporary directory `path`."""
    script = f"""
import os, signal, sys, time
from pyvirt.running.children.keeper import temporary_directory
directory = temporary_directory()
path = directory.path
print(path, flush=True)
{body}
"""
    command = [sys.executable, "-c", script]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


def keeper(*paths: Path) -> None:
    """Tell a keeper of these and leave: it works on detached, so wait for `removed`."""
    told = b"".join(b"+" + os.fsencode(path) + b"\0" for path in paths)
    subprocess.run([program("keeper")], input=told, check=True, timeout=LIMIT)


def keepers() -> set[int]:
    """The pids of all that run now."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "exe") == str(program("keeper")):
                found.add(int(entry.name))
        except OSError:
            continue  # It ended meanwhile, or is not ours to look at.
    return found


def test_is_private_and_goes_when_closed() -> None:
    directory = temporary_directory("pyvirt-test-")
    with directory as path:
        assert path.name.startswith("pyvirt-test-")
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "file").write_text("x")
    assert not path.exists()
    directory.close()


def test_dropped_without_close_warns() -> None:
    directory = temporary_directory()
    path = directory.path
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        del directory
        gc.collect()
    shutil.rmtree(path)
    assert [str(each.message) for each in caught] == [f"<TemporaryDirectory {path}> was not closed"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_goes_when_its_owner_is_killed(number: int) -> None:
    with owner("(path / 'a' / 'b').mkdir(parents=True); time.sleep(100)") as other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
        assert path.exists()
        other.send_signal(number)
    assert removed(path)


def test_goes_when_its_owner_just_ends() -> None:
    with owner("") as other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
    assert removed(path)


def test_signals_to_the_group_do_not_end_the_keeper() -> None:
    body = """
os.setpgid(0, 0)
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
    os.killpg(0, number)
os.killpg(0, signal.SIGKILL)
"""
    with owner(body) as other:
        assert other.stdout is not None
        path = Path(other.stdout.readline().strip())
    assert removed(path)


def test_a_forked_child_neither_removes_nor_prolongs_it() -> None:
    body = """
if not os.fork():
    directory.close()
    print(path.exists(), flush=True)
    with temporary_directory() as own:
        print(own.exists(), flush=True)
    time.sleep(100)
    os._exit(0)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""
    with owner(body) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        path = Path(other.stdout.readline().strip())
        assert [other.stdout.readline() for _ in range(2)] == ["True\n", "True\n"]
        children = Path(f"/proc/{other.pid}/task/{other.pid}/children").read_text().split()
        other.stdin.write("\n")
        other.stdin.flush()
        assert removed(path)
        for child in children:
            os.kill(int(child), signal.SIGKILL)


def test_a_killed_keeper_is_replaced() -> None:
    before = keepers()
    body = """
for line in sys.stdin:
    second = temporary_directory()
    print(second.path, flush=True)
"""
    with owner(body) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        paths = [Path(other.stdout.readline().strip())]
        mine = {pid for pid in keepers() - before if str(other.pid) in _pipe_holders(pid)}
        for pid in mine:
            os.kill(pid, signal.SIGKILL)
            assert removed(Path(f"/proc/{pid}/fd/0"))
        other.stdin.write("\n")
        other.stdin.flush()
        paths.append(Path(other.stdout.readline().strip()))
        other.kill()
    assert mine
    assert all(removed(path) for path in paths)


def _pipe_holders(pid: int) -> set[str]:
    """The pids of those that hold the pipe which *pid* reads."""
    pipe = os.readlink(f"/proc/{pid}/fd/0")
    holders = set()
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(fd) == pipe:
                holders.add(fd.parts[2])
        except OSError:
            continue
    return holders


def test_the_keeper_never_follows_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "kept").mkdir(parents=True)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    named = tmp_path / "named"
    named.symlink_to(outside)
    keeper(inside, named)
    assert removed(inside)
    for _ in range(int(LIMIT / 0.02)):
        if not named.is_symlink():
            break
        time.sleep(0.02)
    assert not named.is_symlink()
    assert (outside / "kept").exists()


def test_the_keeper_empties_what_may_not_be_written(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    (locked / "below").mkdir(parents=True)
    (locked / "below").chmod(0o500)
    locked.chmod(0o500)
    keeper(locked)
    assert removed(locked)


def test_the_keeper_goes_deep_and_wide(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    deep = tree.joinpath(*["d"] * 200)
    deep.mkdir(parents=True)
    for number in range(2000):
        (tree / f"{number:04}").touch()
    keeper(tree)
    assert removed(tree)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_the_keeper_touches_nothing_below_a_mount(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    (outside / "kept").mkdir(parents=True)
    (inside / "mount").mkdir(parents=True)
    (inside / "file").touch()
    subprocess.run(["mount", "--bind", outside, inside / "mount"], check=True)
    try:
        keeper(inside)  # On the same file system: st_dev does not tell.
        assert removed(inside / "file")
        assert (inside / "mount" / "kept").exists()
    finally:
        subprocess.run(["umount", inside / "mount"], check=True)
    assert (outside / "kept").exists()


@pytest.mark.parametrize("told", [b"+relative\0", b"+\0", b"", b"+/" + b"x" * 10000 + b"\0"])
def test_the_keeper_ignores_what_is_no_path_of_ours(told: bytes, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    witness.mkdir()
    told += b"+" + os.fsencode(witness) + b"\0"
    (tmp_path / "relative").mkdir()
    subprocess.run([program("keeper")], input=told, check=True, cwd=tmp_path, timeout=LIMIT)
    assert removed(witness)
    assert (tmp_path / "relative").exists()


def test_the_keeper_forgets(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    told = b"".join(b"+" + os.fsencode(path) + b"\0" for path in (one, two))
    told += b"-" + os.fsencode(one) + b"\0" + b"unterminated"
    subprocess.run([program("keeper")], input=told, check=True, timeout=LIMIT)
    assert removed(two)
    assert one.exists()
