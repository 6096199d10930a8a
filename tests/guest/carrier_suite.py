"""What every carrier must do, whoever answers and wherever it runs.

A test class takes these tests over and gives them a fixture `carrier`; `folder` is a fresh
directory where that carrier's guest can write, and this process need not see it.
"""

from __future__ import annotations

import io
import os
import shlex
import signal
import stat
import time
from pathlib import Path

import pytest

from pyvirt.errors import ClosedError, GuestError, RunError, RunTimedOut

SOON = 60  # seconds; nothing here takes that long, but the machine may be busy


class CarrierSuite:
    """The shared tests."""

    def test_ping_says_how_long_it_took(self, carrier):
        assert 0 < carrier.ping().result(SOON) < SOON

    # Commands

    def test_shell_command(self, carrier):
        result = carrier.run("echo out; echo err >&2; exit 3").result(SOON)
        assert (result.exit_code, result.signal, result.ok) == (3, None, False)
        assert (result.stdout, result.stderr, result.cut) == ("out\n", "err\n", False)
        assert 0 < result.duration < SOON
        with pytest.raises(RunError) as caught:
            result.check()
        assert str(caught.value) == "'echo out; echo err >&2; exit 3': exit code 3: err"

    def test_words_are_not_a_shell_command(self, carrier):
        words = ["printf", "%s|", "a b", "$HOME", "", "*", "'", "ü"]
        result = carrier.run(words).result(SOON).check()
        assert result.stdout == "a b|$HOME||*|'|ü|"
        assert result.command == tuple(words)

    def test_bytes_survive_as_text_and_as_bytes(self, carrier):
        whole = bytes(range(256))
        as_bytes = carrier.run("cat", input=whole, encoding=None).result(SOON)
        assert as_bytes.stdout == whole
        as_text = carrier.run("cat", input=whole).result(SOON)
        assert as_text.stdout.encode("utf-8", "surrogateescape") == whole

    def test_signal_is_told_from_an_exit_code(self, carrier):
        result = carrier.run("kill -TERM $$").result(SOON)
        assert (result.exit_code, result.signal) == (None, signal.SIGTERM)

    def test_without_input_it_reads_an_end(self, carrier):
        assert carrier.run("cat; echo done").result(SOON).stdout == "done\n"

    def test_surroundings(self, carrier, folder):
        script = 'printf "%s %s" "$ONE" "$(pwd -P)"'
        result = carrier.run(script, env={"ONE": "1 =x"}, cwd=folder).result(SOON).check()
        assert result.stdout == f"1 =x {folder}"

    def test_path_stays_when_another_variable_is_set(self, carrier):
        assert carrier.run("ls / >&2 && echo $X", env={"X": "y"}).result(SOON).stdout == "y\n"

    def test_missing_command(self, carrier):
        with pytest.raises(GuestError) as caught:
            carrier.run(["no-such-command", "x"]).result(SOON)
        assert caught.value.what == "no-such-command"
        assert caught.value.reason.endswith("No such file or directory")

    def test_missing_directory(self, carrier):
        with pytest.raises(GuestError):
            carrier.run(["true"], cwd="/no/such/directory").result(SOON)

    def test_limit_cuts_and_says_so(self, carrier):
        script = "head -c 5000 /dev/zero; head -c 3 /dev/zero >&2; exit 4"
        result = carrier.run(script, limit=1000).result(SOON)
        assert (len(result.stdout), len(result.stderr), result.cut) == (1000, 3, True)
        assert result.exit_code == 4

    def test_limit_that_is_just_met_cuts_nothing(self, carrier):
        result = carrier.run("head -c 1000 /dev/zero", limit=1000).result(SOON)
        assert (len(result.stdout), result.cut) == (1000, False)

    def test_sink_gets_everything(self, carrier):
        got = bytearray()
        script = "seq 200000; echo end >&2"
        result = carrier.run(script, stdout=got.extend, limit=10).result(SOON).check()
        assert got == b"".join(b"%d\n" % n for n in range(1, 200001))
        assert (result.stdout, result.stderr, result.cut) == ("", "end\n", False)

    def test_sink_that_raises_ends_the_command(self, carrier):
        def refuse(_):
            raise ValueError("not wanted")

        with pytest.raises(ValueError, match="not wanted"):
            carrier.run("echo x; sleep 1000", stdout=refuse).result(SOON)

    def test_time_limit_kills_the_whole_session(self, carrier, folder):
        script = (
            f"cd {shlex.quote(folder)}; echo begun; echo oops >&2; "
            "sh -c 'trap \"\" TERM; echo $$ >one; exec sleep 1000' & "
            "set -m; sleep 1000 & echo $! >two; wait"
        )
        with pytest.raises(RunTimedOut) as caught:
            carrier.run(script, timeout=1.5).result(SOON)
        assert caught.value.stdout == "begun\n"
        assert caught.value.stderr.startswith("oops\n")  # a shell may say more of its jobs
        assert caught.value.ended
        assert caught.value.seconds == 1.5
        assert isinstance(caught.value, TimeoutError)
        look = f"cd {shlex.quote(folder)}; for p in $(cat one two); do kill -0 $p && echo $p; done"
        deadline = time.monotonic() + SOON
        while alive := carrier.run(look).result(SOON).stdout:
            assert time.monotonic() < deadline, f"still alive: {alive}"

    def test_cancelled_command_is_ended(self, carrier, folder):
        mark = f"{folder}/mark"
        future = carrier.run(f"echo $$ >{shlex.quote(mark)}; sleep 1000")
        wait_for(carrier, f"test -s {shlex.quote(mark)}")
        assert future.cancel()
        wait_for(carrier, f"! kill -0 $(cat {shlex.quote(mark)}) 2>/dev/null")

    def test_many_at_once(self, carrier):
        futures = [carrier.run(f"echo {n}") for n in range(20)]
        assert [future.result(SOON).stdout for future in futures] == [f"{n}\n" for n in range(20)]

    # Live commands

    def test_spawn_talks_back(self, carrier):
        script = 'while read line; do echo "<$line>"; done; echo bye >&2'
        with carrier.spawn(script).result(SOON) as process:
            assert process.pid > 1
            process.stdin.write(b"one\n")
            assert process.stdout.read(6) == b"<one>\n"
            process.stdin.write(b"two\n")
            assert process.stdout.read(6) == b"<two>\n"
            process.stdin.close()
            assert process.wait(SOON).exit_code == 0
            assert (process.stdout.read(), process.stderr.read()) == (b"", b"bye\n")

    def test_spawn_signals_the_group(self, carrier):
        script = "trap 'echo caught; exit 7' USR1; echo ready; while :; do sleep 0.1; done"
        with carrier.spawn(script).result(SOON) as process:
            assert process.stdout.read(6) == b"ready\n"
            process.kill(signal.SIGUSR1).result(SOON)
            assert process.wait(SOON).exit_code == 7
            assert process.stdout.read() == b"caught\n"

    def test_leaving_a_spawned_command_ends_it(self, carrier):
        with carrier.spawn(["sleep", "1000"]).result(SOON) as process:
            assert not process.ended.done()
        assert process.wait(SOON).signal == signal.SIGKILL

    def test_lines_of_a_spawned_command(self, carrier):
        with carrier.spawn("printf 'a\\nb\\nc'").result(SOON) as process:
            assert list(process.stdout.lines()) == [b"a\n", b"b\n", b"c"]

    # Files

    @pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
    def test_file_there_and_back(self, carrier, folder, size):
        data = os.urandom(size)
        seen = []
        sent = carrier.put(io.BytesIO(data), f"{folder}/file", progress=lambda *a: seen.append(a))
        assert sent.result(SOON) == size
        assert seen[-1:] == ([(size, size)] if size else [])
        back = io.BytesIO()
        assert carrier.get(f"{folder}/file", back).result(SOON) == size
        assert back.getvalue() == data

    def test_put_sets_the_mode_and_keeps_links(self, carrier, folder):
        carrier.run("ln -s real link", cwd=folder).result(SOON).check()
        carrier.put(b"one", f"{folder}/link", mode=0o640).result(SOON)
        carrier.put(b"two", f"{folder}/link", mode=0o755).result(SOON)
        result = carrier.run("readlink link; stat -c %a real; cat real; ls", cwd=folder)
        assert result.result(SOON).stdout == "real\n755\ntwolink\nreal\n"

    def test_put_that_fails_leaves_the_old_file(self, carrier, folder):
        class Broken(io.RawIOBase):
            def read(self, size=-1):
                raise ValueError("broken")

        carrier.put(b"old", f"{folder}/file").result(SOON)
        with pytest.raises(ValueError, match="broken"):
            carrier.put(Broken(), f"{folder}/file").result(SOON)
        wait_for(carrier, f"test $(ls -A {shlex.quote(folder)}) = file")
        back = io.BytesIO()
        carrier.get(f"{folder}/file", back).result(SOON)
        assert back.getvalue() == b"old"

    @pytest.mark.parametrize("name", ["no/such/file", "."])
    def test_put_where_no_file_can_be(self, carrier, folder, name):
        with pytest.raises(GuestError) as caught:
            carrier.put(b"x", f"{folder}/{name}").result(SOON)
        assert caught.value.what == f"{folder}/{name}"

    def test_get_of_a_missing_file(self, carrier, folder):
        with pytest.raises(GuestError) as caught:
            carrier.get(f"{folder}/none", io.BytesIO()).result(SOON)
        assert str(caught.value) == (
            f"{folder}/none failed in the guest: No such file or directory"
        )
        assert caught.value.errno == 2

    def test_get_of_a_file_without_a_size(self, carrier):
        back = io.BytesIO()
        carrier.get("/proc/version", back).result(SOON)
        assert back.getvalue().startswith(b"Linux version")

    def test_tree_there_and_back(self, carrier, folder, tmp_path):
        build_tree(tmp_path / "a")
        carrier.put_tree(str(tmp_path / "a"), f"{folder}/tree").result(SOON)
        carrier.get_tree(f"{folder}/tree", str(tmp_path / "b")).result(SOON)
        assert snapshot(tmp_path / "b") == snapshot(tmp_path / "a")

    def test_get_of_a_missing_tree(self, carrier, folder, tmp_path):
        with pytest.raises(GuestError):
            carrier.get_tree(f"{folder}/none", str(tmp_path / "b")).result(SOON)

    # Facts

    def test_info(self, carrier):
        info = carrier.info().result(SOON)
        kernel = carrier.run("uname -r; uname -m; uname -n").result(SOON).stdout.split("\n")
        assert [info.kernel, info.machine, info.hostname] == kernel[:3]
        assert info.time > 1_600_000_000
        assert info.uptime > 0
        assert "127.0.0.1/8" in next(one for one in info.interfaces if one.name == "lo").addresses

    def test_listening(self, carrier):
        port = free_port(carrier)
        assert not carrier.listening(port).result(SOON)

    # Ends

    def test_close_fails_what_is_open(self, own_carrier):
        future = own_carrier.run("sleep 1000")
        process = own_carrier.spawn("echo hi; sleep 1000").result(SOON)
        assert process.stdout.read(3) == b"hi\n"
        waiting = process.stdout.chunk()
        own_carrier.close()
        for one in (future, process.ended, waiting):
            with pytest.raises(ClosedError):
                one.result(SOON)
        with pytest.raises(ClosedError):
            own_carrier.ping()
        own_carrier.close()


def wait_for(carrier, condition):
    """Until a shell command in the guest succeeds."""
    deadline = time.monotonic() + SOON
    while not carrier.run(condition).result(SOON).ok:
        assert time.monotonic() < deadline, condition


def free_port(carrier):
    """A port on which nothing in the guest listens."""
    for port in range(47_000, 47_100):
        if not carrier.listening(port).result(SOON):
            return port
    raise AssertionError("no free port")


def build_tree(root: Path) -> None:
    """A tree with everything that a copy has to keep."""
    (root / "deep" / ("n" * 120) / ("m" * 120)).mkdir(parents=True)
    (root / "deep" / ("n" * 120) / ("m" * 120) / "leaf").write_bytes(b"leaf")
    (root / "empty").mkdir(mode=0o700)
    (root / "file with\nnewline ü").write_bytes(os.urandom(1500))
    (root / "big").write_bytes(os.urandom(700_000))
    (root / "none").write_bytes(b"")
    (root / "tool").write_bytes(b"#!/bin/sh\n")
    (root / "tool").chmod(0o755)
    (root / "link").symlink_to("nowhere/" + "x" * 150)
    (root / "up").symlink_to("deep")


def snapshot(root: Path) -> dict[str, object]:
    """What a tree is: kind, mode and content of everything in it."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = (
            os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        )
        mode = 0 if path.is_symlink() else stat.S_IMODE(status.st_mode)
        found[str(path.relative_to(root))] = (stat.S_IFMT(status.st_mode), mode, content)
    return found
