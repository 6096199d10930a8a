"""What fails, is cancelled or killed leaves the old file, or none, and no process."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from writes import MIB, eventually, image, info, io, names, run, sound

import pyvirt.aio
from pyvirt import image as face
from pyvirt.errors import HeldError, ImageError, ToolError
from pyvirt.image import begin
from pyvirt.running.tools import journal

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="no qemu-img here")

#: So slow that whatever happens, happens in the middle.
SLOW = {"rate": "256K"}


class Halfway:
    """A progress that says when it has begun."""

    def __init__(self) -> None:
        self.reached = threading.Event()

    def __call__(self, what: str, done: float | None) -> None:
        if done is not None:
            self.reached.set()


def processes(word: str) -> list[int]:
    """Who has `word` on its command line."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if word.encode() in (place / "cmdline").read_bytes():
                found.append(int(place.name))
    return found


def started(path: Path, **more: Any) -> tuple[begin.Writing[Any], Halfway]:
    halfway = Halfway()
    return begin.convert(path, path.parent / "out", progress=halfway, **SLOW, **more), halfway


def test_cancelling_leaves_nothing(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2", data="write -P 7 0 32M")
    writing, halfway = started(path)
    assert halfway.reached.wait(30)
    assert any(name.endswith(".part") for name in names(tmp_path))
    assert writing.cancel()
    with pytest.raises(CancelledError):
        writing.result(30)
    assert writing.cancelled()
    assert names(tmp_path) == ["a.qcow2"]
    assert processes(str(tmp_path)) == []


def test_cancelling_leaves_the_old_file(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2", data="write -P 7 0 32M")
    (tmp_path / "out").write_text("old")
    writing, halfway = started(path, overwrite=True)
    assert halfway.reached.wait(30)
    writing.cancel()
    with pytest.raises(CancelledError):
        writing.result(30)
    assert (tmp_path / "out").read_text() == "old"
    assert names(tmp_path) == ["a.qcow2", "out"]


def test_cancelling_a_commit_changes_neither_image(tmp_path: Path) -> None:
    base = image(tmp_path / "base.qcow2")
    top = face.create(tmp_path / "top.qcow2", backing="base.qcow2", backing_format="qcow2").path
    io(top, "write -P 9 0 32M")
    before = base.read_bytes(), top.read_bytes()
    halfway = Halfway()
    writing = begin.commit(top, rate="256K", progress=halfway)
    assert halfway.reached.wait(30)
    writing.cancel()
    with pytest.raises(CancelledError):
        writing.result(30)
    assert (base.read_bytes(), top.read_bytes()) == before
    assert names(tmp_path) == ["base.qcow2", "top.qcow2"]


def test_what_is_done_cannot_be_cancelled(tmp_path: Path) -> None:
    writing = begin.create(tmp_path / "x", "1M")
    writing.result(30)
    assert not writing.cancel()
    assert names(tmp_path) == ["x"]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as Python has it; shells start what runs in the background with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_cancels(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2", data="write -P 7 0 32M")

    def interrupt(what: str, done: float | None) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        face.convert(path, tmp_path / "out", progress=interrupt, **SLOW)
    assert names(tmp_path) == ["a.qcow2"]
    assert processes(str(tmp_path)) == []


def test_a_cancelled_task_cancels(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2", data="write -P 7 0 32M")

    async def cancel() -> None:
        halfway = Halfway()
        writing = pyvirt.aio.image.convert(path, tmp_path / "out", progress=halfway, **SLOW)
        task = asyncio.create_task(writing)
        await asyncio.to_thread(halfway.reached.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert names(tmp_path) == ["a.qcow2"]

    asyncio.run(cancel())


def test_both_faces_have_the_same_acts() -> None:
    for name in begin.__all__:
        signatures = [inspect.signature(getattr(each, name)) for each in
                      (begin, face, pyvirt.aio.image)]  # fmt: skip
        assert signatures[0] == signatures[1] == signatures[2]
    made = asyncio.run(_twice())
    assert made


async def _twice() -> bool:
    return inspect.iscoroutinefunction(pyvirt.aio.image.create)


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[Path]:
    place = directory / "small"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2", data="write -P 7 0 16M")
    with small_disk(tmp_path, "4M") as place:
        with pytest.raises(ToolError) as caught:
            face.convert(path, place / "out", "raw")
        assert "No space left on device" in caught.value.words
        assert names(place) == []


def test_a_full_disk_changes_no_image(tmp_path: Path) -> None:
    """A journal that finds no room, and a file in which its changes would find none."""
    with small_disk(tmp_path, "8M") as place:
        base = image(place / "base.qcow2", "16M", data="write -P 7 0 1M")
        top = face.create(place / "top.qcow2", backing="base.qcow2", backing_format="qcow2").path
        io(top, "write -P 9 1M 3M")
        before = base.read_bytes(), top.read_bytes()
        with pytest.raises((ToolError, OSError), match="No space left"):
            face.commit(top)
        assert (base.read_bytes(), top.read_bytes()) == before
        assert names(place) == ["base.qcow2", "top.qcow2"]


def test_a_source_that_vanishes_is_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        face.convert(tmp_path / "gone.qcow2", tmp_path / "out")
    assert str(tmp_path / "gone.qcow2") in caught.value.words
    assert names(tmp_path) == []


def test_a_tool_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2", data="write -P 7 0 32M")
    writing, halfway = started(path)
    assert halfway.reached.wait(30)
    (victim,) = processes(str(tmp_path))
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(ToolError) as caught:
        writing.result(30)
    assert caught.value.end == "killed by SIGKILL"
    assert names(tmp_path) == ["a.qcow2"]


PARENT = """
import sys
from pyvirt.image import convert
convert(sys.argv[1], sys.argv[2], rate="256K",
        progress=lambda what, done: done is not None and print("going", flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_leaves_neither_process_nor_file(
    tmp_path: Path, number: signal.Signals
) -> None:
    path = image(tmp_path / "a.qcow2", data="write -P 7 0 32M")
    words = [sys.executable, "-c", PARENT, str(path), str(tmp_path / "out")]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.send_signal(number)
        parent.wait()
    eventually(lambda: names(tmp_path) == ["a.qcow2"], "no half-written file")
    eventually(lambda: processes(str(tmp_path)) == [], "no process")


@contextmanager
def held(path: Path, *words: str) -> Iterator[None]:
    """The image as a running QEMU holds it."""
    command = ["qemu-io", "-f", "qcow2", *words, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.read(8) == b"qemu-io>"
        yield
        holder.stdin.close()
        holder.wait()


@pytest.mark.parametrize(
    "act",
    [
        lambda path: face.resize(path, "1G"),
        lambda path: face.snapshot_create(path, "s"),
        lambda path: face.bitmap_add(path, "b"),
        lambda path: face.amend(path, lazy_refcounts=True),
        lambda path: face.rebase(path, None),
        lambda path: face.compact(path),
        lambda path: face.create(path, "1M", overwrite=True),
        lambda path: face.convert(path, path.parent / "out"),
        lambda path: face.commit(path.parent / "top.qcow2"),
        lambda path: face.recover(path),
    ],
    ids=["resize", "snapshot", "bitmap", "amend", "rebase", "compact", "create", "convert",
         "commit", "recover"],
)
def test_an_image_that_a_qemu_holds_is_left_alone(
    tmp_path: Path, act: Callable[[Path], object]
) -> None:
    path = image(tmp_path / "a.qcow2")
    face.create(tmp_path / "top.qcow2", backing="a.qcow2", backing_format="qcow2")
    with held(path):
        before = path.read_bytes()
        with pytest.raises(HeldError) as caught:
            act(path)
        assert caught.value.path == str(path)
        assert caught.value.holder.startswith("qemu-io (pid ")
        assert str(caught.value).startswith(f"{path} is in use: qemu-io (pid ")
        assert path.read_bytes() == before
        assert names(tmp_path) == ["a.qcow2", "top.qcow2"]
        face.convert(path, tmp_path / "torn", shared=True)
        assert face.snapshot_list(path) == ()


def test_an_image_that_others_read_is_not_changed_under_them(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2")
    with held(path, "-r"), pytest.raises(HeldError):
        face.resize(path, "1G")
    assert names(tmp_path) == ["a.qcow2"]


def test_no_qemu_opens_an_image_while_it_is_changed(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2", data="write -P 7 0 32M")
    top = face.create(tmp_path / "top.qcow2", backing="a.qcow2", backing_format="qcow2").path
    io(top, "write -P 9 0 32M")
    halfway = Halfway()
    writing = begin.commit(top, rate="256K", progress=halfway)
    assert halfway.reached.wait(30)
    said = subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write 0 64k", path],
                          capture_output=True, text=True)  # fmt: skip
    assert said.returncode != 0
    assert 'Failed to get "write" lock' in said.stderr
    writing.cancel()
    with pytest.raises(CancelledError):
        writing.result(30)
    io(path, "write -P 1 0 64k")


def cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host loses power after the first piece of a journal was copied."""
    whole = journal._copy
    seen = []

    def copy(*arguments: Any) -> None:
        if seen:
            raise SystemExit("no power")
        seen.append(arguments)
        whole(*arguments)

    monkeypatch.setattr(journal, "_copy", copy)


@pytest.mark.parametrize(
    "next_act",
    [
        lambda path: face.recover(path),
        lambda path: face.bitmap_add(path, "b"),
        lambda path: face.compact(path),
    ],
    ids=["recover", "bitmap", "compact"],
)
def test_a_change_that_was_cut_short_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, next_act: Callable[[Path], object]
) -> None:
    path = image(tmp_path / "a.qcow2")
    with monkeypatch.context() as patch:
        cut_short(patch)
        with pytest.raises(SystemExit):
            face.resize(path, "10T")
    redo = f".a.qcow2.{path.stat().st_ino:x}.redo"
    assert names(tmp_path) == [redo, "a.qcow2"]
    with pytest.raises(ImageError) as caught:
        face.convert(path, tmp_path / "out")
    assert caught.value.reason == "was being changed when that was cut short; recover() finishes it"
    next_act(path)
    assert names(tmp_path) == ["a.qcow2"]
    assert info(path)["virtual-size"] == 10 << 40
    io(path, "read -P 7 0 4M")
    sound(path)
    assert not face.recover(path)


def test_a_journal_of_another_file_is_not_taken_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = image(tmp_path / "a.qcow2")
    with monkeypatch.context() as patch:
        cut_short(patch)
        with pytest.raises(SystemExit):
            face.resize(path, "10T")
    new = image(tmp_path / "new.qcow2", "1M", data="write -P 3 0 1M")
    os.replace(new, path)
    face.bitmap_add(path, "b")
    assert info(path)["virtual-size"] == MIB
    io(path, "read -P 3 0 1M")


def test_many_at_once(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2")
    all_ = [begin.convert(path, tmp_path / f"{number}.raw", "raw") for number in range(6)]
    assert {one.result(60).size for one in all_} == {64 * MIB}
    run("cmp", tmp_path / "0.raw", tmp_path / "5.raw")


def test_what_failed_by_its_clock_alone_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine, where QEMU cannot time what a LUKS passphrase costs."""
    real, tries = shutil.which("qemu-img"), tmp_path / "tries"
    fake = tmp_path / "bin" / "qemu-img"
    fake.parent.mkdir()
    fake.write_text(
        f"#!/bin/sh\necho >>{tries}\n"
        f"[ $(wc -l <{tries}) -gt 3 ] && exec {real} \"$@\"\n"
        "echo 'qemu-img: a: Unable to get accurate CPU usage' >&2; exit 1\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    face.create(tmp_path / "a", "1M")
    sound(tmp_path / "a")
    assert tries.read_text().count("\n") > 3
