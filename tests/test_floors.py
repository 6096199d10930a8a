"""The floors of the house: imports point down only, pure floors do no I/O, importing is cheap."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up; names on one floor may import each other.
FLOORS = [
    {"errors", "_native"},
    {"fields", "html"},
    {"image", "lxc", "qemu", "qmp", "screen", "virtio"},
    {"catalogue", "device", "devices", "disk", "flows", "guest", "machine", "nic", "qemu_img",
     "rootfs"},
    {"agreement", "boot", "container", "explanation", "files", "plan", "vm"},
    {"running"},
    {"bench"},
    {"__main__", "aio", "cli", "demo", "pytest_plugin"},
]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
RUNNING = LEVEL["running"]

# `start()` on a description opens the only doors that lead up, and only when it is called.
DOORS = {
    ("pyvirt.vm", "pyvirt.running.vm"),
    ("pyvirt.container.container", "pyvirt.running.kept"),
    ("pyvirt.container.container", "pyvirt.running.lxc.container"),
    ("pyvirt.disk.disk", "pyvirt.running.tools"),
}

IMPURE = {"asyncio", "multiprocessing", "select", "selectors", "socket", "subprocess", "time"}


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in sorted(ROOT.glob("pyvirt/**/*.py"))}


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """What *module* imports when it runs, and whether already at its own import."""
    tree = ast.parse(MODULES[module].read_text())
    delayed = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node not in delayed
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield (name if name in MODULES else base), node not in delayed


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for other in child.orelse:
                yield from _executed(other)
        else:
            yield from _executed(child)


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = MODULES[module].name == "__init__.py"
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + package]
    return ".".join([*kept, *([node.module] if node.module else [])])


def level(module: str) -> int:
    """The floor of a module; the package `pyvirt` itself is the roof."""
    parts = module.split(".")
    return len(FLOORS) if len(parts) == 1 else LEVEL[parts[1]]


def test_every_module_has_a_floor() -> None:
    assert {name.split(".")[1] for name in MODULES if "." in name} <= set(LEVEL)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    for target, at_once in imports(module):
        if target.split(".")[0] == "pyvirt" and level(target) > level(module):
            assert (module, target) in DOORS, f"{module} imports {target}, which is above it"
            assert not at_once, f"{module} opens {target} before it is asked to"


@pytest.mark.parametrize("module", [name for name in MODULES if level(name) < RUNNING])
def test_what_describes_and_computes_does_no_io(module: str) -> None:
    found = {target.split(".")[0] for target, _ in imports(module)}
    assert not found & IMPURE


# What describing a machine has no use for.
HEAVY = {"asyncio", "cffi", "click", "ctypes", "email", "http", "importlib.metadata", "logging"}
HEAVY |= {"multiprocessing", "pyvirt.running", "select", "socket", "ssl", "subprocess", "tempfile"}

WATCH = """
import json, os, sys, threading

files, acts, read = [], [], []

class Environment(type(os.environ)):
    def __init__(self, old): self.__dict__.update(old.__dict__)
    def __getitem__(self, name):
        read.append((name, sys._getframe(1).f_globals.get("__name__", "")))
        return super().__getitem__(name)

def audit(event, arguments):
    if event == "open":
        files.append(str(arguments[0]))
    elif event.split(".")[0] in ("socket", "subprocess", "fcntl", "ctypes", "shutil", "tempfile"):
        acts.append(event)
    elif event in ("os.posix_spawn", "os.fork", "os.exec", "os.mkdir", "os.putenv"):
        acts.append(event)

import attrs, msgspec
before = set(sys.modules)
os.environ = Environment(os.environ)
sys.addaudithook(audit)
from pyvirt import VM, Disk, Nic
loaded = set(sys.modules) - before
import pyvirt, pkgutil
for module in pkgutil.walk_packages(pyvirt.__path__, "pyvirt."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
print(json.dumps({
    "loaded": sorted(loaded),
    "files": [name for name in files if not name.endswith((".py", ".pyc", ".so"))],
    "acts": acts,
    "variables": [name for name, reader in read if reader.startswith("pyvirt")],
    "threads": threading.active_count(),
}))
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, object]:
    """What happened while pyvirt and then all of its modules were imported."""
    command = [sys.executable, "-I", "-B", "-c", WATCH]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    result: dict[str, object] = json.loads(said.stdout)
    return result


def test_importing_starts_and_opens_nothing(seen: dict[str, object]) -> None:
    assert (seen["acts"], seen["files"], seen["threads"]) == ([], [], 1)


def test_importing_reads_no_environment_variable(seen: dict[str, object]) -> None:
    assert seen["variables"] == []


def test_describing_loads_little(seen: dict[str, object]) -> None:
    loaded = seen["loaded"]
    assert isinstance(loaded, list)
    assert not set(loaded) & HEAVY
    assert len([name for name in loaded if not name.startswith("pyvirt")]) < 40
