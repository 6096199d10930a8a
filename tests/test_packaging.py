"""What a user installs: sdist → wheel → a fresh environment, an editable one, and the stubs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

# Each builds everything anew, also on a machine that is busy.
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[1]
DOORS = sorted(path.stem for path in ROOT.glob("pyvirt/_native/*.pyx"))
PROGRAMS = sorted(path.stem for path in ROOT.glob("csrc/programs/*"))
BUILT = shutil.ignore_patterns("__pycache__", "bin", "*.so")

# Imports every module, runs a bundled program of each kind and says where all that is.
TRY = """
import pkgutil, pyvirt, subprocess
from importlib import import_module
from pyvirt._native import program
from pyvirt.running.children.keeper import temporary_directory
from pyvirt.running.children.process import spawn

for module in pkgutil.walk_packages(pyvirt.__path__, "pyvirt."):
    if not module.name.endswith("__main__"):
        import_module(module.name)
with temporary_directory() as path, spawn(["pwd"], cwd=path) as child:
    assert child.wait(20).ok and child.last_words == str(path)
assert subprocess.check_output([program("kvmproof")]).startswith(b'{"verdict":')
print(pyvirt.__path__[0])
"""


def hook(name: str, source: Path, target: Path) -> Path:
    """What the PEP 517 hook *name* makes of the project in *source*, without a network."""
    target.mkdir(exist_ok=True)
    code = f"import sys\nfrom setuptools.build_meta import *\nprint({name}(sys.argv[1]))"
    made = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return target / made.stdout.splitlines()[-1]


def install(wheel: Path, where: Path) -> Path:
    """The python of a new environment with *wheel*; other packages are borrowed from ours."""
    venv.create(where, with_pip=False, symlinks=True)
    python = where / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    site = next(where.glob("lib/python*/site-packages"))
    (site / "borrowed.pth").write_text(ours + "\n")
    return python


def tried(python: Path, directory: Path) -> Path:
    """Where *python* found the pyvirt that it tried out."""
    environment = {"PATH": os.environ["PATH"]}
    command = [python, "-W", "error", "-c", TRY]
    said = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    return Path(said.stdout.strip())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which nothing has been built."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("pyvirt", "csrc"):
        shutil.copytree(ROOT / name, copy / name, ignore=BUILT)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for door in DOORS:
        (copy / f"pyvirt/_native/{door}.c").unlink(missing_ok=True)
    return copy


@pytest.fixture(scope="module")
def sdist(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hook("build_sdist", project, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    unpacked = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["tar", "xf", sdist, "-C", unpacked], check=True)
    (source,) = unpacked.iterdir()
    return hook("build_wheel", source, tmp_path_factory.mktemp("wheel"))


def sources(pattern: str) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in ROOT.glob(pattern) if path.is_file()}


def test_the_sdist_holds_all_that_a_build_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    needed = sources("csrc/*.[ch]") | sources("csrc/programs/**/*.[ch]")
    needed |= sources("pyvirt/**/*.py") | sources("pyvirt/**/*.py[xi]")
    needed |= {"setup.py", "pyproject.toml", "LICENSE", "pyvirt/py.typed"}
    assert needed - held == set()


def test_the_wheel_is_for_this_platform_and_holds_no_sources(wheel: Path) -> None:
    assert not wheel.name.endswith("-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.endswith("/")}
    package = {name for name in held if name.startswith("pyvirt/")}
    programs = {f"pyvirt/_native/bin/{name}" for name in PROGRAMS}
    doors = {name for name in package if name.endswith(".so")}
    written = sources("pyvirt/**/*.py") | sources("pyvirt/**/*.pyi") | {"pyvirt/py.typed"}
    assert package == written | programs | doors
    assert {Path(name).name.split(".")[0] for name in doors} == set(DOORS)
    assert any(name.endswith("licenses/LICENSE") for name in held)


def test_the_wheel_brings_a_command_and_fixtures(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        entries = archive.read(name).decode()
    assert "[console_scripts]\npyvirt = pyvirt.cli:main\n" in entries
    assert "[pytest11]\npyvirt = pyvirt.pytest_plugin\n" in entries


def test_the_programs_are_static_and_small(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in PROGRAMS:
            program = archive.read(f"pyvirt/_native/bin/{name}")
            assert program.startswith(b"\x7fELF")
            # Only `enter` loads a library, liblxc, and that only when it runs.
            assert b"/ld-linux" not in program or name == "enter"
            assert b"/ld-musl" not in program or name == "enter"
            assert b"liblxc.so.1" not in program or name == "enter"
            assert len(program) < 1_500_000


def test_the_wheel_works_where_nothing_else_is(wheel: Path, tmp_path: Path) -> None:
    python = install(wheel, tmp_path / "fresh")
    assert tried(python, tmp_path).is_relative_to(tmp_path)


def test_an_editable_installation_works(project: Path, tmp_path: Path) -> None:
    python = install(hook("build_editable", project, tmp_path / "wheel"), tmp_path / "fresh")
    assert tried(python, tmp_path) == project / "pyvirt"


def test_every_door_has_its_stub() -> None:
    stubs = sorted(path.stem for path in ROOT.glob("pyvirt/_native/*.pyi"))
    assert stubs == DOORS


@pytest.mark.skipif(not DOORS, reason="there is no extension module")
def test_the_stubs_say_what_the_doors_are() -> None:
    modules = [f"pyvirt._native.{door}" for door in DOORS]
    command = [sys.executable, "-m", "mypy.stubtest", "--ignore-disjoint-bases"]
    command += ["--mypy-config-file", os.devnull, *modules]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
