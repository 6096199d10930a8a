"""Children: what they are given, how their end is noticed, and that they never outlive us."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from pyvirt.errors import ClosedError, TimedOut
from pyvirt.running.children.process import Exit, Process, spawn
from pyvirt.running.host.usage import parse_usage

LIMIT = 20.0


def words(*argv: str, **options: object) -> str:
    """The last words of a child that ran to its end."""
    with spawn(argv, **options) as child:  # type: ignore[arg-type]
        child.wait(LIMIT)
        return child.last_words


def heard(child: Process, text: str) -> None:
    """Wait until *child* has said *text*."""
    for _ in range(int(LIMIT / 0.01)):
        if text in child.last_words:
            return
        time.sleep(0.01)
    raise AssertionError(f"{child!r} never said {text!r}")


def gone(pid: int) -> bool:
    """Whether *pid* has ended, waiting for it at most LIMIT seconds."""
    for _ in range(int(LIMIT / 0.02)):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def parent(body: str, *argv: str) -> subprocess.Popen[str]:
    """Another Python that runs *body*, in which `spawn` is known."""
    names = "import os, signal, sys, time\nfrom pyvirt.running.children.process import spawn"
    script = f"{names}\n{body}"
    return subprocess.Popen(
        [sys.executable, "-c", script, *argv], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("script", "code", "number", "sentence"),
    [
        ("exit 0", 0, None, "exit code 0"),
        ("exit 3", 3, None, "exit code 3"),
        ("kill -SEGV $$", None, signal.SIGSEGV, "killed by SIGSEGV"),
        ("kill -40 $$", None, 40, "killed by signal 40"),
    ],
)
def test_tells_how_it_ended(
    script: str, code: int | None, number: int | None, sentence: str
) -> None:
    with spawn(["sh", "-c", script]) as child:
        end = child.wait(LIMIT)
    assert (end.code, end.signal, str(end), end.ok) == (code, number, sentence, code == 0)
    assert child.exit is end
    assert repr(child) == f"<sh {child.pid}: {sentence}>"


def test_an_end_that_something_else_reaped_is_told_as_unseen() -> None:
    child = spawn(["sleep", "100"])
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # The kernel reaps.
    try:
        child.kill()
        assert child.wait(LIMIT) == Exit()
        assert str(child.exit) == "ended unseen"
    finally:
        signal.signal(signal.SIGCHLD, old)


def test_hears_the_last_words_from_both_outputs() -> None:
    assert words("sh", "-c", "echo one; echo two >&2") == "one\ntwo"


def test_keeps_the_end_of_a_flood_and_never_blocks_it() -> None:
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i >&2; done"
    said = words("sh", "-c", script)
    assert said.endswith("line 19999\nline 20000")
    assert len(said) <= 16 * 1024


def test_what_is_not_text_is_heard_too() -> None:
    assert words("printf", r"\377bad") == "\N{REPLACEMENT CHARACTER}bad"


def test_gives_exactly_the_descriptors_named() -> None:
    reader, writer = os.pipe()
    other = os.open("/", os.O_RDONLY)
    os.set_inheritable(other, True)  # Even one that somebody else made inheritable.
    try:
        said = words("sh", "-c", "ls /proc/$$/fd; true", pass_fds=[writer, writer])
        assert said.split() == sorted(["0", "1", "2", str(writer)])
        words("sh", "-c", f"echo through >/proc/self/fd/{writer}", pass_fds=[writer])
        assert os.read(reader, 100) == b"through\n"
    finally:
        for fd in (reader, writer, other):
            os.close(fd)


def test_a_standard_descriptor_cannot_be_passed() -> None:
    with pytest.raises(ValueError, match=r"^pass_fds holds the standard descriptor 2$"):
        spawn(["true"], pass_fds=[2, 7])


def test_standard_descriptors_may_be_crossed() -> None:
    first, one = os.pipe()
    second, two = os.pipe()
    feed, source = os.pipe()
    os.write(source, b"fed\n")
    os.close(source)
    try:
        with spawn(["sh", "-c", "cat; echo no >&2"], stdin=feed, stdout=one, stderr=two) as child:
            assert child.wait(LIMIT).ok
            assert child.last_words == ""
        assert (os.read(first, 100), os.read(second, 100)) == (b"fed\n", b"no\n")
    finally:
        for fd in (first, one, second, two, feed):
            os.close(fd)


def test_reads_nothing_unless_told() -> None:
    assert words("cat") == ""


def test_runs_where_and_with_what_it_is_told(tmp_path: Path) -> None:
    said = words("sh", "-c", "pwd; echo $WORD", cwd=tmp_path, env={"WORD": "a b"})
    assert said == f"{tmp_path}\na b"


def test_runs_on_the_cpus_named() -> None:
    cpu = max(os.sched_getaffinity(0))
    said = words("grep", "Cpus_allowed_list", "/proc/self/status", cpus=[cpu])
    assert said.split() == ["Cpus_allowed_list:", str(cpu)]


def test_starts_with_the_signals_of_a_shell() -> None:
    """Python ignores SIGPIPE, and would hand that down."""
    signals = [signal.SIGPIPE, signal.SIGXFSZ]
    ignored = int(words("sed", "-n", "s/SigIgn:\t//p", "/proc/self/status"), 16)
    assert [ignored >> (number - 1) & 1 for number in signals] == [0, 0]


def test_has_a_session_of_its_own() -> None:
    with spawn(["sleep", "100"]) as child:
        assert os.getsid(child.pid) == child.pid != os.getsid(0)


@pytest.mark.parametrize(
    ("argv", "options", "kind", "about"),
    [
        (["/nonexistent/qemu"], {}, FileNotFoundError, "/nonexistent/qemu"),
        (["no-such-program-anywhere"], {}, FileNotFoundError, "no-such-program-anywhere"),
        (["/"], {}, PermissionError, "/"),
        (["true"], {"cwd": "/nonexistent"}, FileNotFoundError, "/nonexistent"),
        (["true"], {"cpus": [1000]}, OSError, "cpus"),
    ],
)
def test_what_cannot_start_raises_at_once(
    argv: list[str], options: dict[str, object], kind: type[OSError], about: str
) -> None:
    with pytest.raises(kind) as caught:
        spawn(argv, **options)  # type: ignore[arg-type]
    assert caught.value.filename == about


def children() -> set[str]:
    """The pids of all children of this process, zombies too: others may have some."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


def test_what_cannot_start_leaves_nothing() -> None:
    words("true")
    before = sorted(os.listdir("/proc/self/fd")), children()
    for _ in range(5):
        with pytest.raises(FileNotFoundError):
            spawn(["/nonexistent"])
    assert (sorted(os.listdir("/proc/self/fd")), children()) == before


def test_many_ends_leave_no_descriptor_thread_or_zombie() -> None:
    words("true")
    before = sorted(os.listdir("/proc/self/fd")), threading.active_count(), children()
    started: list[Process] = []

    def start() -> None:
        for _ in range(10):
            child = spawn(["true"])
            started.append(child)
            child.close()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({child.pid for child in started if child.exit}) == 40
    now = sorted(os.listdir("/proc/self/fd")), threading.active_count(), children()
    assert now == before


def test_the_end_is_an_event() -> None:
    ends: list[Exit] = []
    done = threading.Event()
    child = spawn(["sleep", "100"])
    child.ended.add_done_callback(lambda ended: (ends.append(ended.result()), done.set()))
    child.terminate()
    assert done.wait(LIMIT)
    assert ends == [child.exit]
    assert str(child.exit) == "killed by SIGTERM"


def test_close_kills_once_and_may_be_repeated() -> None:
    child = spawn(["sh", "-c", "trap '' TERM; echo deaf; exec sleep 100"])
    heard(child, "deaf")
    child.terminate()
    child.close()
    child.close()
    assert child.exit is not None
    assert child.exit.signal == signal.SIGKILL
    child.kill()
    child.terminate()


def test_a_wait_has_its_limit() -> None:
    with spawn(["sh", "-c", "echo waiting; exec sleep 100"]) as child:
        heard(child, "waiting")
        with pytest.raises(TimedOut) as caught:
            child.wait(0.01)
    assert str(caught.value) == "the end of sh took longer than 0.01 s: waiting"


def test_waiting_on_the_io_thread_is_refused() -> None:
    from pyvirt.running.waiting.loop import loop

    refusals: list[RuntimeError] = []
    done = threading.Event()

    def ask() -> None:
        try:
            child.wait()
        except RuntimeError as error:
            refusals.append(error)
        done.set()

    with spawn(["sleep", "100"]) as child:
        loop().soon(ask)
        assert done.wait(LIMIT)
    assert str(refusals[0]) == "waiting for sleep on the I/O thread would be for ever"


def test_usage_while_it_runs_and_after() -> None:
    with spawn(["sleep", "100"]) as child:
        now = child.usage()
        assert now.threads == 1
        assert 0 < now.resident <= now.peak
        assert now.resident == now.anonymous + now.shared + now.files
    with pytest.raises(ClosedError) as caught:
        child.usage()
    assert str(caught.value) == "sleep is closed: killed by SIGKILL"
    assert child.exit is not None
    assert child.exit.user + child.exit.system >= 0


def test_usage_of_a_program_with_a_hostile_name() -> None:
    stat = "7 (a) R) b) S " + " ".join(str(n) for n in range(4, 53))
    status = "Name:\ta) R) b\nThreads:\t3\nVmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\n"
    used = parse_usage(stat, status, 100)
    assert (used.user, used.system, used.threads) == (0.14, 0.15, 3)
    assert (used.resident, used.peak, used.shared) == (1024000, 2048000, 0)


def test_the_pidfd_is_there_until_the_end() -> None:
    with spawn(["sleep", "100"]) as child:
        signal.pidfd_send_signal(child.pidfd, signal.SIGTERM)
        child.wait(LIMIT)
    with pytest.raises(ClosedError, match="killed by SIGTERM"):
        _ = child.pidfd


def test_dropped_without_close_warns_and_is_still_reaped() -> None:
    child = spawn(["sleep", "100"])
    pid, ended, name = child.pid, child.ended, repr(child)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        del child
        gc.collect()
    assert [str(warning.message) for warning in caught] == [f"{name} was not closed"]
    os.kill(pid, signal.SIGKILL)
    assert ended.result(LIMIT).signal == signal.SIGKILL
    assert gone(pid)


def test_a_childs_life_ends_with_its_parents() -> None:
    with parent("print(spawn(['sleep', '100']).pid, flush=True); time.sleep(100)") as other:
        assert other.stdout is not None
        pid = int(other.stdout.readline())
        other.kill()
    assert gone(pid)


def test_a_child_does_not_end_with_the_thread_that_asked_for_it() -> None:
    children: list[Process] = []
    thread = threading.Thread(target=lambda: children.append(spawn(["sleep", "100"])))
    thread.start()
    thread.join()
    with children[0] as child, pytest.raises(TimedOut):
        child.wait(0.3)


def test_a_forked_child_cannot_end_the_parents_children() -> None:
    body = """
child = spawn(['sleep', '100'])
pid = os.fork()
if not pid:
    child.close()
    try:
        child.kill()
    except ConnectionError as error:
        print(error, flush=True)
    with spawn(['echo', 'its own']) as mine:
        mine.wait()
        print(mine.last_words, flush=True)
    os._exit(0)
os.waitpid(pid, 0)
time.sleep(0.1)
print(os.getpid(), child.exit, flush=True)
child.close()
print(child.exit, flush=True)
"""
    with parent(body) as other:
        said, _ = other.communicate(timeout=LIMIT)
    assert said.splitlines() == [
        f"sleep is closed: it belongs to process {other.pid}",
        "its own",
        f"{other.pid} None",
        "killed by SIGKILL",
    ]


def test_starts_are_not_held_up_by_forks() -> None:
    """A forked child that kept the report pipe would keep `spawn` from returning."""
    body = """
import threading
children = []
def start():
    for _ in range(30):
        with spawn(['true']) as child:
            child.wait()
        children.append(child)
thread = threading.Thread(target=start)
thread.start()
forks = []
while thread.is_alive():
    pid = os.fork()
    if not pid:
        time.sleep(100)
    forks.append(pid)
    time.sleep(0.002)
for pid in forks:
    os.kill(pid, signal.SIGKILL)
print(len(children), flush=True)
"""
    with parent(body) as other:
        said, _ = other.communicate(timeout=LIMIT)
    assert said == "30\n"
