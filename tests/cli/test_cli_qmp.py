"""``pyvirt qmp`` and ``qmp-stubs``: words by the schema, and a shell on a real monitor."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_tool import document, pyvirt
from hypothesis import given
from hypothesis import strategies as st
from support.qemu import needs_qemu
from test_cli_run import Terminal

from pyvirt import SpecError, UnsupportedError
from pyvirt.cli.qmp import address
from pyvirt.cli.qmp_words import command, complete, parse, split
from pyvirt.qmp.check import conform
from pyvirt.qmp.schema import Schema
from pyvirt.running.host.probe import probe

pytestmark = [needs_qemu, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def schema() -> Schema:
    return probe().schema


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a QEMU without a machine."""
    path = tmp_path_factory.mktemp("monitor") / "qmp, one.sock"
    where = str(path).replace(",", ",,")
    words = ["qemu-system-x86_64", "-M", "none", "-nodefaults", "-S", "-display", "none"]
    with subprocess.Popen([*words, "-qmp", f"unix:{where},server=on,wait=off"]) as process:
        for _ in range(1000):
            if path.exists():
                break
            time.sleep(0.01)
        yield path
        process.kill()


@pytest.mark.parametrize(
    ("line", "name", "arguments"),
    [
        ("query-status", "query-status", {}),
        ("query_status", "query-status", {}),
        ("blockdev-add driver=null-co node-name=n size=1048576 read-zeroes=on", "blockdev-add",
         {"driver": "null-co", "node-name": "n", "size": 1 << 20, "read-zeroes": True}),
        ("blockdev-add driver=qcow2 node-name=12 file.driver=file file.filename='a b' "
         "file.locking=off read-only=yes", "blockdev-add",
         {"driver": "qcow2", "node-name": "12", "read-only": True,
          "file": {"driver": "file", "filename": "a b", "locking": "off"}}),
        ("blockdev-add driver=qcow2 file=other", "blockdev-add",
         {"driver": "qcow2", "file": "other"}),
        ('blockdev-add {"driver": "null-co", "node-name": "a \\" b"}', "blockdev-add",
         {"driver": "null-co", "node-name": 'a " b'}),
        ("device_add driver=virtio-rng-pci id=r max-bytes=1024 multifunction=on", "device_add",
         {"driver": "virtio-rng-pci", "id": "r", "max-bytes": 1024, "multifunction": True}),
        ('send-key keys=[{"type":"qcode","data":"a"}] hold-time=5', "send-key",
         {"keys": [{"type": "qcode", "data": "a"}], "hold-time": 5}),
        ("human-monitor-command command-line='info status'", "human-monitor-command",
         {"command-line": "info status"}),
        ("qom-set path=/x property=y value=3", "qom-set",
         {"path": "/x", "property": "y", "value": 3}),
    ],
)  # fmt: skip
def test_words_become_what_the_schema_says(
    schema: Schema, line: str, name: str, arguments: dict[str, Any]
) -> None:
    assert parse(schema, line) == (name, arguments)
    assert conform(schema, name, arguments) == arguments


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  a  b ", ["a", "b"]),
        ("a='b c' \"d\"e ''", ["a=b c", "de", ""]),
        ('a="it\'s"', ["a=it's"]),
        ('a={"b c": ["d e", 1]} f', ['a={"b c": ["d e", 1]}', "f"]),
        ('{"a": "} \\" {"} b', ['{"a": "} \\" {"}', "b"]),
        ("{'a' b", ["{'a' b"]),
    ],
)
def test_lines_are_split(line: str, words: list[str]) -> None:
    assert split(line) == words


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.text())))
def test_json_is_one_word(mapping: dict[str, Any]) -> None:
    text = json.dumps(mapping)
    assert split(f"command {text} more") == ["command", text, "more"]


@pytest.mark.parametrize(
    ("line", "error", "said"),
    [
        ("query-statu", UnsupportedError, "did you mean 'query-status'"),
        ("stop now", SpecError, "must be NAME=VALUE"),
        ("stop 'now", SpecError, "has a quotation without an end"),
        ("stop {", SpecError, "cannot be read as JSON"),
    ],
)
def test_words_that_mean_nothing(schema: Schema, line: str, error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        parse(schema, line)


@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("query-st", ["query-status "], ["query-name "]),
        ("system_", ["system_reset ", "system_powerdown "], []),
        ("blockdev-add dri", ["driver="], ["node-name="]),
        ("blockdev-add driver=qco", ["driver=qcow ", "driver=qcow2 "], ["driver=raw "]),
        (
            "blockdev-add driver=qcow2 ",
            ["file.", "backing.", "l2-cache-size=", "node-name="],
            ["driver=", "read-zeroes="],
        ),
        ("blockdev-add driver=qcow2 read-only=", ["read-only=on ", "read-only=off "], []),
        ("blockdev-add driver=qcow2 file.dri", ["file.driver="], []),
        ("blockdev-add driver=qcow2 file.driver=fil", ["file.driver=file "], []),
        ("blockdev-add driver=qcow2 file.driver=file file.f", ["file.filename="], []),
        ("no-such-command x", [], ["x"]),
    ],
)
def test_words_are_completed(schema: Schema, line: str, some: list[str], none: list[str]) -> None:
    found = complete(schema, line)
    assert set(some) <= set(found)
    assert not set(none) & set(found)


def test_every_command_can_be_completed_and_begun(schema: Schema) -> None:
    for name in schema.commands:
        assert f"{name} " in complete(schema, name)
        complete(schema, f"{name} ")
        assert command(schema, [name])[0] == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/run/q.sock", "/run/q.sock"),
        ("unix:a:1", "a:1"),
        ("q.sock", "q.sock"),
        ("localhost:4444", ("localhost", 4444)),
        ("tcp:[::1]:4444", ("::1", 4444)),
        (":4444", ("localhost", 4444)),
    ],
)
def test_addresses(text: str, expected: Any) -> None:
    assert address(text) == expected


# On a real monitor -------------------------------------------------------------------------------


def test_one_command(monitor: Path) -> None:
    assert document("qmp", monitor, "query-status")["status"] == "prelaunch"
    assert document("qmp", monitor, "--json", "query-version")["qemu"]["major"] >= 7


def test_a_refusal_is_a_fault(monitor: Path) -> None:
    said = pyvirt("qmp", monitor, "blockdev-del", "node-name=nothing")
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith("pyvirt: blockdev-del: ")
    wrong = pyvirt("qmp", monitor, "blockdev-add", "driver=null-cow")
    assert "blockdev-add.driver is unknown (did you mean 'null-co'?)" in wrong.stderr


def test_lines_of_a_script(monitor: Path) -> None:
    script = b"# two commands\nquery-name\n\nblockdev-add driver=null-co node-name=scripted\n"
    assert document("qmp", monitor, "--json", input=script) == [{}, {}]
    nodes = document("qmp", monitor, "query-named-block-nodes")
    assert "scripted" in [node["node-name"] for node in nodes]
    said = pyvirt("qmp", monitor, input=b"query-name\nno-command\nquery-name\n")
    assert (said.returncode, said.stdout) == (1, "{}\n")


def test_a_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none"]
    monitor = f"tcp:127.0.0.1:{port},server=on,wait=off"
    with subprocess.Popen([*words, "-qmp", monitor]) as process:
        try:
            for _ in range(500):
                said = pyvirt("qmp", f"127.0.0.1:{port}", "query-status")
                if said.returncode == 0:
                    break
            assert json.loads(said.stdout)["running"] is True
        finally:
            process.kill()


def test_the_shell_completes_shows_events_and_remembers(
    monitor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    terminal = Terminal("qmp", str(monitor))
    terminal.wait_for("(QEMU ")
    terminal.type("query-vers\t\n")
    terminal.wait_for('"major": ')
    terminal.type("cont\n")
    terminal.wait_for("RESUME")
    terminal.type("help stop\n")
    terminal.wait_for("QMP command ``stop``.")
    terminal.type("no-such\n")
    terminal.wait_for("is not available in this QEMU")
    terminal.wait_for("(QEMU ")
    terminal.type("\x04")
    assert terminal.end() == (0, True)
    history = (tmp_path / "pyvirt" / "qmp_history").read_text().splitlines()
    assert [line.strip() for line in history] == ["query-version", "cont", "help stop", "no-such"]


# Stubs -------------------------------------------------------------------------------------------


def test_stubs_are_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.pyi"
    assert pyvirt("qmp-stubs", "-o", path).stdout == ""
    text = path.read_text()
    assert "from mine import Commands" in text
    compile(text, str(path), "exec")
    made = document("qmp-stubs", "--json", "-o", path)
    assert made == {"qemu": probe().name, "commands": len(probe().schema.commands),
                    "file": str(path)}  # fmt: skip
    assert pyvirt("qmp-stubs").stdout == text.replace("from mine ", "from qemu_commands ")


def test_stubs_have_the_rights_that_new_files_have(tmp_path: Path) -> None:
    pyvirt("qmp-stubs", "-o", tmp_path / "a.pyi")
    (tmp_path / "b").touch()
    assert os.stat(tmp_path / "a.pyi").st_mode == os.stat(tmp_path / "b").st_mode
