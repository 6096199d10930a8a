"""``pyvirt container``: from the first command to the last, on real containers."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tool import document, pyvirt


def unable() -> str:
    """Why no container runs here; empty where they do."""
    if os.geteuid() != 0:
        return "needs root"
    from pyvirt.errors import PyvirtError
    from pyvirt.running.lxc.library import library

    try:
        library()
    except PyvirtError as error:
        return str(error)
    return ""


needs_containers = pytest.mark.skipif(bool(unable()), reason=unable())


@pytest.fixture
def name() -> Iterator[str]:
    """A name that no container has, nor has at the end."""
    name = f"cli-{secrets.token_hex(4)}"
    yield name
    pyvirt("container", "destroy", "--force", name)


def names() -> list[str]:
    return [each["name"] for each in document("container", "list", "--json")["containers"]]


@needs_containers
def test_a_command_runs_in_a_container_of_its_own() -> None:
    before = names()
    said = pyvirt("container", "run", "--env", "A=b", "cat; echo $A; exit 3", input=b"in\n")
    assert (said.returncode, said.stdout, said.stderr) == (3, "in\nb\n", "")
    found = document("container", "run", "--hostname", "h", "-m", "64M", "--json", "hostname")
    assert (found["exit_code"], found["stdout"], found["cut"]) == (0, "h\n", False)
    assert names() == before


@needs_containers
def test_a_container_is_kept_until_it_is_destroyed(name: str, tmp_path: Path) -> None:
    def container(*words: object, code: int = 0) -> object:
        return document("container", *map(str, words), code=code)

    assert container("create", "--json", "-m", "64M", name) == {"name": name, "state": "stopped"}
    assert pyvirt("container", "start", name).stdout.startswith(f"Started {name}, process ")
    info = document("container", "info", "--json", name)
    assert (info["state"], info["memory_limit"], info["kept"]) == ("running", 64 << 20, True)
    assert info["description"] == {"name": name, "memory": "64M"}
    assert pyvirt("container", "exec", name, "echo 1 > /root/kept").returncode == 0
    refused = document("container", "snapshot", "create", "--json", name, "first", code=1)
    assert refused["error"]["message"] == (
        f"container {name} runs; stop it before taking a snapshot"
    )
    assert document("container", "stop", "--json", name)["state"] == "stopped"
    assert document("container", "stop", "--json", name)["end"] is None
    container("snapshot", "create", "--json", name, "first")
    container("start", "--json", name)
    pyvirt("container", "exec", name, "echo 2 > /root/kept")
    container("stop", "--json", name)
    container("snapshot", "apply", "--json", name, "first")
    listed = document("container", "snapshot", "list", "--json", name)["snapshots"]
    assert [each["name"] for each in listed] == ["first"]
    container("start", "--json", name)
    assert pyvirt("container", "exec", name, "cat /root/kept").stdout == "1\n"
    assert document("container", "exec", "--json", name, "false", code=1)["exit_code"] == 1
    refused = document("container", "destroy", "--json", name, code=1)
    assert refused["error"]["type"] == "RunsError"
    assert container("destroy", "--json", "--force", name) == {"name": name, "state": "destroyed"}
    assert name not in names()


@needs_containers
def test_it_is_copied_and_carried_elsewhere(name: str, tmp_path: Path) -> None:
    document("container", "create", "--json", name)
    others = [f"{name}-a", f"{name}-b"]
    try:
        made = document("container", "clone", "--json", "--overlay", name, *others)
        assert made["clones"] == others
        document("container", "rename", "--json", others[1], f"{name}-c")
        file = tmp_path / "x.tar.zst"
        assert document("container", "export", "--json", name, file)["path"] == str(file)
        document("container", "import", "--json", file, others[1])
        assert {name, *others, f"{name}-c"} <= set(names())
        table = pyvirt("container", "list").stdout.splitlines()
        assert table[0].split() == ["NAME", "STATE", "KEPT", "SNAPSHOTS"]
        assert [line.split()[1:] for line in table if line.startswith(f"{name} ")] == [
            ["stopped", "yes", "0"]
        ]
    finally:
        for other in (*others, f"{name}-c"):
            pyvirt("container", "destroy", other)


@needs_containers
def test_its_files_come_from_where_they_are_said_to(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    subprocess.run(["sh", "-ec", "mkdir bin; cp $(which busybox) bin/sh; echo hello > file; "
                    "tar -cf ../root.tar ."], cwd=tmp_path / "tree", check=True)  # fmt: skip
    words = ["container", "run", "--rootfs", f"Tarball,path={tmp_path / 'root.tar'}"]
    end = pyvirt(*words, "--init", "/bin/sh", "/bin/sh", "-c", "read x < /file; echo $x")
    assert "no field" not in end.stderr
    (tmp_path / "broken.tar").write_bytes(b"x" * 100)
    broken = f"Tarball,path={tmp_path / 'broken.tar'}"
    end = pyvirt("container", "run", "--rootfs", broken, "true")
    assert (end.returncode, end.stderr) == (
        1, f"pyvirt: {tmp_path / 'broken.tar'}: ends too early at byte 100\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run"], 2, "Give a COMMAND, or --console for a shell."),
        (["run", "--console"], 2, "--console needs a terminal, and no --json."),
        (["run", "--rootfs", "Debain,suite=sid", "x"], 1,
         "rootfs.type is unknown here (did you mean 'Debian'?), got 'Debain'"),
        (["create", "x", "--rootfs", "Debian"], 1,
         "rootfs.suite must be given for Debian, got None"),
        (["create", "a/b"], 1, "name must be 1 to 63 of [A-Za-z0-9_.-], a letter or digit first, "
         "got 'a/b'"),
        (["create", "x", "--mount", "Bind,source=/a"], 1,
         "mounts[0].target must be given for Bind, got None"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_told(words: list[str], code: int, said: str) -> None:
    end = pyvirt("container", *words)
    assert (end.returncode, end.stdout) == (code, "")
    assert end.stderr.strip().endswith(said)


def test_a_container_that_is_not_there_is_told() -> None:
    found = document("container", "info", "--json", "nobody-at-all", code=1)["error"]
    assert (found["type"], found["field"], found["value"]) == (
        "SpecError", "name", "nobody-at-all"
    )  # fmt: skip
