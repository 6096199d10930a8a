"""``pyvirt top`` and ``pyvirt trace`` on a guest that ``pyvirt run`` runs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from cli_tool import COMMAND, document, pyvirt
from support.qemu import needs_qemu

from pyvirt import VM, findable
from pyvirt.cli.guests import attach, everyone

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

#: What the guest does: it reads the same place of its disk again and again, and sends pings.
WORK = (
    "echo ready; while :; do dd if=/dev/vda of=/dev/null bs=8k skip=3 count=1 iflag=direct; "
    "ping -c 1 10.0.2.2; sleep 0.1; done 2>/dev/null"
)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A runtime directory in which one guest of ``pyvirt run``, called "busy", is found."""
    folder = tmp_path_factory.mktemp("runtime")
    folder.chmod(0o700)
    disk = folder / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder)}
    words = ["run", "--name", "busy", "--disk", f"{disk},format=raw", "--nic", "virtio-net", WORK]
    with subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, env=environment, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield str(folder)
        process.terminate()
        process.communicate(timeout=60)
    assert list((folder / "pyvirt").iterdir()) == []


def test_top_shows_what_queues_do(runtime: str) -> None:
    rows = document("top", "busy", "--times", "1", "--every", "2", "--json",
                    XDG_RUNTIME_DIR=runtime)  # fmt: skip
    found = {(row["device"], row["queue"]): row for row in rows}
    assert found["disk0", "request0"]["guest"] == "busy"
    assert found["disk0", "request0"]["requests"] > 0
    assert found["disk0", "request0"]["writable"] > 0


def test_top_finds_guests_by_itself_and_draws_a_table(runtime: str) -> None:
    said = pyvirt("top", "--times", "1", XDG_RUNTIME_DIR=runtime)
    assert said.returncode == 0, said.stderr
    assert said.stdout.split()[:4] == ["GUEST", "DEVICE", "QUEUE", "DEPTH"]
    assert "busy" in said.stdout


def test_trace_tells_each_request(runtime: str) -> None:
    said = pyvirt("trace", "busy", "disk0", "--seconds", "2", "--realtime", XDG_RUNTIME_DIR=runtime)
    assert said.returncode == 0, said.stderr
    assert "read 8 KiB at 24576, ok" in said.stdout
    assert "requests in" in said.stderr


def test_trace_writes_files(runtime: str, tmp_path: Path) -> None:
    pcap, iolog = tmp_path / "frames.pcapng", tmp_path / "log"
    said = pyvirt("trace", "busy", "disk0", "nic0", "--seconds", "3", "--pcap", pcap, "--iolog",
                  iolog, XDG_RUNTIME_DIR=runtime)  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert pcap.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    assert iolog.read_text().startswith("fio version 3 iolog")
    assert "read 24576 8192" in iolog.read_text()


def test_trace_as_a_document(runtime: str) -> None:
    said = document("trace", "busy", "disk0", "--seconds", "2", "--json", XDG_RUNTIME_DIR=runtime)
    assert [queue["name"] for queue in said["queues"]] == ["request0"]
    assert said["queues"][0]["done"] > 0
    assert set(said["lost"]) == {"requests", "uncertain", "dropped"}
    assert said["ended"] == "it was stopped"


def test_a_guest_is_named_by_pid_and_by_socket(runtime: str) -> None:
    (socket,) = (Path(runtime) / "pyvirt").iterdir()
    pid = socket.name.split(".")[1]
    for which in (pid, str(socket)):
        said = document("trace", which, "--seconds", "0.1", "--json", XDG_RUNTIME_DIR=runtime)
        assert len(said["queues"]) > 3


def test_guests_of_a_program_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    machine = VM(name="my.own", machine="none", memory="64M", agents=())
    with findable(machine) as one, findable(machine) as other, one.start(), other.start():
        found = everyone()
        assert [guest.name for guest in found] == ["my.own", "my.own"]
        assert len({guest.pid for guest in found}) == 2
        for guest in found:
            guest.close()
        with pytest.raises(click.UsageError, match="Several guests are meant by 'my_own'"):
            attach("my_own")
    assert everyone() == []


def test_a_guest_that_is_not_there(runtime: str) -> None:
    said = pyvirt("trace", "nobody", XDG_RUNTIME_DIR=runtime)
    assert said.returncode == 2
    assert "There is no guest 'nobody'. Guests of pyvirt run: busy (" in said.stderr


def test_no_guest_at_all(tmp_path: Path) -> None:
    said = pyvirt("top", XDG_RUNTIME_DIR=str(tmp_path))
    assert said.returncode == 2
    assert "No guest of" in said.stderr
