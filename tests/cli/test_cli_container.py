"""``pyvirt container``: from the first command to the last, on real containers."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_tool import document, pyvirt

from pyvirt.cli import main


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


class Here:
    """``pyvirt container WORDS`` in this process: there are many, and each costs half a second."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def text(self, *words: object, code: int = 0) -> str:
        """What it prints."""
        self._capfd.readouterr()
        assert main(["container", *map(str, words)]) == code
        return self._capfd.readouterr().out

    def __call__(self, verb: str, *words: object, code: int = 0) -> Any:
        """The one document that it prints."""
        return json.loads(self.text(*verb.split(), "--json", *words, code=code))

    def names(self) -> list[str]:
        return [each["name"] for each in self("list")["containers"]]


@pytest.fixture
def container(capfd: pytest.CaptureFixture[str]) -> Here:
    return Here(capfd)


@pytest.fixture
def name(container: Here) -> Iterator[str]:
    """A name that no container has, nor has at the end."""
    name = f"cli-{secrets.token_hex(4)}"
    yield name
    for each in container.names():
        if each.startswith(name):
            container("destroy", "--force", each)


@needs_containers
def test_a_command_runs_in_a_container_of_its_own(container: Here) -> None:
    before = container.names()
    said = pyvirt("container", "run", "--env", "A=b", "cat; echo $A; exit 3", input=b"in\n")
    assert (said.returncode, said.stdout, said.stderr) == (3, "in\nb\n", "")
    found = document("container", "run", "--hostname", "h", "-m", "64M", "--json", "hostname")
    assert (found["exit_code"], found["stdout"], found["cut"]) == (0, "h\n", False)
    assert container.names() == before


@needs_containers
def test_a_container_is_kept_until_it_is_destroyed(container: Here, name: str) -> None:
    assert container("create", "-m", "64M", name) == {"name": name, "state": "stopped"}
    assert pyvirt("container", "start", name).stdout.startswith(f"Started {name}, process ")
    info = container("info", name)
    assert (info["state"], info["memory_limit"], info["kept"]) == ("running", 64 << 20, True)
    assert info["description"] == {"name": name, "memory": "64M"}
    container.text("exec", name, "echo 1 > /root/kept")
    refused = container("snapshot create", name, "first", code=1)
    assert refused["error"]["message"] == (
        f"container {name} runs; stop it before taking a snapshot"
    )
    assert container("stop", name)["state"] == "stopped"
    assert container("stop", name)["end"] is None
    container("snapshot create", name, "first")
    container("start", name)
    container.text("exec", name, "echo 2 > /root/kept")
    container("stop", name)
    container("snapshot apply", name, "first")
    listed = container("snapshot list", name)["snapshots"]
    assert [each["name"] for each in listed] == ["first"]
    container("start", name)
    assert container.text("exec", name, "cat /root/kept") == "1\n"
    assert container("exec", name, "false", code=1)["exit_code"] == 1
    assert container("destroy", name, code=1)["error"]["type"] == "RunsError"
    assert container("destroy", "--force", name) == {"name": name, "state": "destroyed"}
    assert name not in container.names()


@needs_containers
def test_it_is_copied_and_carried_elsewhere(container: Here, name: str, tmp_path: Path) -> None:
    container("create", name)
    others = [f"{name}-a", f"{name}-b"]
    assert container("clone", "--overlay", name, *others)["clones"] == others
    container("rename", others[1], f"{name}-c")
    file = tmp_path / "x.tar.zst"
    assert container("export", name, file)["path"] == str(file)
    container("import", file, others[1])
    assert {name, *others, f"{name}-c"} <= set(container.names())
    table = container.text("list").splitlines()
    assert table[0].split() == ["NAME", "STATE", "KEPT", "SNAPSHOTS"]
    assert [line.split()[1:] for line in table if line.startswith(f"{name} ")] == [
        ["stopped", "yes", "0"]
    ]


@needs_containers
def test_those_start_with_the_host_that_are_to(container: Here, name: str, tmp_path: Path) -> None:
    for order, end in enumerate("ab"):
        described = {"autostart": {"order": order, "groups": ["web"]}}
        file = tmp_path / f"{end}.json"
        file.write_text(json.dumps(described))
        container("create", "--container", file, f"{name}-{end}")
    container("create", f"{name}-c")
    assert container("autostart", "--group", "db") == {"started": []}
    assert container("autostart", "--group", "web") == {"started": [f"{name}-b", f"{name}-a"]}
    assert container("autostart") == {"started": []}


@needs_containers
def test_it_lives_where_it_is_said_to(container: Here, name: str, tmp_path: Path) -> None:
    container("create", name)
    empty = json.loads(container.text("--store", tmp_path, "list", "--json"))
    assert empty == {"containers": []}
    assert container("prune", "--unused-for", "0") == {"removed": []}


@needs_containers
def test_its_files_come_from_where_they_are_said_to(container: Here, tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs busybox")
    (tmp_path / "tree/bin").mkdir(parents=True)
    shutil.copy(busybox, tmp_path / "tree/bin/busybox")
    (tmp_path / "tree/bin/sh").symlink_to("busybox")
    (tmp_path / "tree/init").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tmp_path / "tree/init").chmod(0o755)
    (tmp_path / "tree/file").write_text("hello\n")
    subprocess.run(["tar", "-cf", "root.tar", "-C", "tree", "."], cwd=tmp_path, check=True)
    rootfs = f"Tarball,path={tmp_path / 'root.tar'}"
    words = ("--rootfs", rootfs, "--init", "/init")
    assert container.text("run", *words, "busybox cat /file") == "hello\n"
    (tmp_path / "broken.tar").write_bytes(b"x" * 100)
    error = container("run", "--rootfs", f"Tarball,path={tmp_path}/broken.tar", "x", code=1)
    assert error["error"]["message"] == f"{tmp_path}/broken.tar: ends too early at byte 100"


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
