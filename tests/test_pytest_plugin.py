"""The fixtures that others get: the project of the docs runs with them, and what they say holds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from support.qemu import needs_qemu

from pyvirt import VM, RunningVM, pytest_plugin
from pyvirt.errors import UnsupportedError
from pyvirt.running.host.accel import Accelerator
from pyvirt.running.shared import SharedGuest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "example"
TEXT = (ROOT / "docs" / "testing.md").read_text()


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """pytest in a process of its own, with the plugin."""
    installed = any(one.value == "pyvirt.pytest_plugin" for one in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "pyvirt.pytest_plugin"]
    path = ":".join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider", str(folder)]
    # Not from the root, whose own settings would be taken.
    return subprocess.run(
        [*command, "--rootdir", str(folder), *words], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


@needs_qemu
@pytest.mark.timeout(600)
def test_the_project_of_the_docs_runs(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    said = run(
        EXAMPLE, "-c", str(EXAMPLE / "pytest.ini"), f"--junitxml={report}", "--strict-markers"
    )
    assert said.returncode == 0, said.stdout + said.stderr
    cases = {case.get("name"): case for case in ElementTree.parse(report).iter("testcase")}
    assert len(cases) == 6
    for name, case in cases.items():
        skipped = case.find("skipped")
        if skipped is not None:
            assert name in ("test_speed", "test_a_container_has_its_own_name")
            assert re.match("needs (KVM|LXC)", str(skipped.get("message")))


def test_the_docs_show_the_example_and_all_that_there_is() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert block in (EXAMPLE / "test_disk.py").read_text()
    fixtures = set(
        re.findall(r"^def (pyvirt_\w+)\(", Path(pytest_plugin.__file__).read_text(), re.M)
    )
    told = set(re.findall(r"^\| `(\w+)`", TEXT, re.M))
    assert fixtures - {"pyvirt_timeout"} | set(pytest_plugin.MARKERS) == told


def test_the_plugin_imports_little() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import pyvirt.pytest_plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(said.stdout.split()) == {"pyvirt", "pyvirt.pytest_plugin"}


def test_a_failed_test_shows_the_console_and_a_wrong_call_says_so(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "def test_factory(pyvirt_vm):\n    pyvirt_vm('vm', memory='1G')\n"
        "class Running:\n"
        "    class console: tail = 'kernel panic'\n"
        "    def __repr__(self): return 'guest 7'\n"
        "def test_shown(request):\n"
        "    from pyvirt.pytest_plugin import _hold\n"
        "    _hold(request, Running())\n"
        "    assert False\n"
    )
    said = run(tmp_path)
    assert "TypeError: give a VM or the fields of one, not both" in said.stdout
    assert "console of guest 7" in said.stdout
    assert "kernel panic" in said.stdout


def test_markers_skip_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Accelerator("tcg", "/dev/kvm is not there")
    monkeypatch.setattr("pyvirt.running.host.accel.prove", lambda: found)
    assert pytest_plugin.no_kvm() == "needs KVM: /dev/kvm is not there"
    monkeypatch.setattr("pyvirt.running.host.accel.prove", lambda: Accelerator("kvm", "proved"))
    assert pytest_plugin.no_kvm() is None
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert pytest_plugin.no_root() == "needs root"

    def refuse() -> None:
        raise UnsupportedError("liblxc", "this host", "apt install liblxc1")

    monkeypatch.setattr("pyvirt.running.lxc.library.library", refuse)
    assert str(pytest_plugin.no_lxc()).startswith("needs LXC: ")


@needs_qemu
@pytest.mark.timeout(600)
def test_a_guest_is_made_as_it_was_or_replaced() -> None:
    with SharedGuest(VM(name="again", memory="256M"), timeout=200) as shared:
        first = shared.ready()
        dirty(first)
        assert shared.reset()
        assert shared.ready() is first
        assert first.run("ls -A /tmp /dev/shm; pidof sleep").stdout.split() == [
            "/dev/shm:", "/tmp:",
        ]  # fmt: skip
        first.run("echo x >> /etc/passwd", check=True)
        assert not shared.reset()
        assert first.exit is not None
        assert "not booted" in repr(shared)
        assert not shared.reset()


def dirty(running: RunningVM) -> None:
    running.run("sleep 1000 >/dev/null 2>&1 & touch /tmp/.a /tmp/b /dev/shm/c", check=True)
    running.pause()
