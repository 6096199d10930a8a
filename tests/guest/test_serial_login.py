"""The last resort: a login on the serial console of a guest in which no agent answers."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, Guest, GuestError, RunningVM, RunTimedOut, UnsupportedError
from pyvirt.errors import ClosedError

pytestmark = [needs_qemu, pytest.mark.timeout(300)]

PASSWORD = "secret word"
HASH = (
    "$6$pyvirt$2t11T8VE1Ki/1uPsC2U4sH.tnkhzbuZX1BEeMhk9K5i3DrRdW"
    ".4e6ezbaBymQx6iI4sunR/oLTR.whC4RGzq.."
)

GUEST = Guest(
    init="setsid getty -L 115200 ttyS0 vt100 &",
    files={
        "/etc/passwd": f"root:{HASH}:0:0:root:/root:/bin/sh\nkim:x:1000:1000::/:/bin/sh\n".encode()
    },
)


@pytest.fixture(scope="module")
def running() -> Iterator[RunningVM]:
    with VM(name="silent", memory="256M", boot=GUEST, agents=[]).start() as running:
        running.wait_for(serial="login: ", timeout=120)
        yield running


@pytest.fixture(scope="module")
def entered(running: RunningVM) -> RunningVM:
    with pytest.raises(UnsupportedError, match="a channel to an agent"):
        running.run("true")
    with pytest.raises(GuestError) as caught:
        running.login("root", "wrong")
    assert str(caught.value) == "login as root failed in the guest: the guest refused it"
    running.login("root", PASSWORD)
    return running


def test_commands(entered: RunningVM) -> None:
    result = entered.run(
        "cat; echo err >&2; pwd; echo $A; exit 3", input="in\n", cwd="/tmp", env={"A": "b"}
    )
    assert (result.exit_code, result.stdout, result.stderr) == (3, "in\n/tmp\nb\n", "err\n")
    killed = entered.run("kill -9 $$")
    assert (killed.exit_code, killed.signal) == (None, 9)
    assert entered.run("id -u", user="kim").stdout == "1000\n"
    assert 0 < entered.ping() < 60


def test_output_is_whole_or_marked_as_cut(entered: RunningVM) -> None:
    whole = entered.run("seq 10000")
    assert whole.stdout == "".join(f"{n}\n" for n in range(1, 10001))
    cut = entered.run("seq 10000", limit=100)
    assert (len(cut.stdout), cut.cut) == (100, True)


def test_a_command_that_is_too_late_is_ended(entered: RunningVM) -> None:
    with pytest.raises(RunTimedOut) as caught:
        entered.run("echo begun; exec sleep 4321", timeout=2)
    assert caught.value.stdout == "begun\n"
    assert "4321" not in entered.run("ps").stdout


def test_commands_take_turns(entered: RunningVM) -> None:
    shell = entered._engine.carrier
    late = shell.run("sleep 1000")
    futures = [shell.run(f"echo {n}") for n in range(3)]
    time.sleep(1)
    assert late.cancel()
    assert [future.result(60).stdout for future in futures] == ["0\n", "1\n", "2\n"]


def test_small_files(entered: RunningVM, tmp_path: Path) -> None:
    data = os.urandom(20_000)
    seen: list[tuple[int, int | None]] = []
    entered.run("ln -s real /tmp/link", check=True)
    entered.put(data, "/tmp/link", mode=0o600, progress=lambda *at: seen.append(at))
    assert seen[-1] == (20_000, 20_000)
    assert entered.run("stat -c %a /tmp/real; ls /tmp | grep -v ^tmp").stdout == "600\nlink\nreal\n"
    back = io.BytesIO()
    assert entered.get("/tmp/link", back) == 20_000
    assert back.getvalue() == data
    assert entered.read_text("/proc/sys/kernel/ostype") == "Linux\n"
    with pytest.raises(GuestError) as caught:
        entered.read_text("/no/such/file")
    assert caught.value.errno == 2


def test_small_trees(entered: RunningVM, tmp_path: Path) -> None:
    (tmp_path / "a/deep").mkdir(parents=True)
    (tmp_path / "a/deep/file").write_text("leaf")
    (tmp_path / "a/link").symlink_to("deep/file")
    entered.put(tmp_path / "a", "/tmp/tree")
    entered.get("/tmp/tree", tmp_path / "b", tree=True)
    assert (tmp_path / "b/deep/file").read_text() == "leaf"
    assert os.readlink(tmp_path / "b/link") == "deep/file"


def test_facts_and_the_clock(entered: RunningVM) -> None:
    info = entered.guest_info()
    assert (info.os["ID"], info.hostname, info.machine) == ("pyvirt", "pyvirt", "x86_64")
    assert "127.0.0.1/8" in next(one for one in info.interfaces if one.name == "lo").addresses
    assert info.uptime is not None
    entered.set_time(1_000_000_000)
    assert entered.run("date -u +%Y").stdout == "2001\n"


def test_what_it_cannot_do_is_refused_in_a_sentence(entered: RunningVM) -> None:
    with pytest.raises(UnsupportedError) as caught:
        entered.spawn("cat")
    assert str(caught.value) == (
        "a live command is not available in a shell on the guest's console; "
        "use the console itself, or give the guest an agent"
    )
    with pytest.raises(UnsupportedError, match="output as it comes"):
        entered.run("true", stdout=print)
    with pytest.raises(UnsupportedError, match="freezing file systems"):
        entered.freeze()
    with pytest.raises(UnsupportedError, match="a file of more than 1 MiB"):
        entered.put(bytes((1 << 20) + 1), "/tmp/large")
    entered.run("truncate -s 2M /tmp/large", check=True)
    with pytest.raises(UnsupportedError, match="a file of more than 1 MiB"):
        entered.get("/tmp/large", io.BytesIO())


def test_a_reset_ends_the_shell_until_the_next_login(entered: RunningVM) -> None:
    entered.reset()
    entered.wait_for(serial="login: ", timeout=120)
    with pytest.raises(ClosedError, match="the guest was reset"):
        entered.run("true")
    entered.login("root", PASSWORD)
    assert entered.run("echo back").stdout == "back\n"
