"""Shared libraries are found where the dynamic linker finds them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pyvirt.guest.libraries import Finder, Missing


def ldd(path: str) -> set[Path]:
    """The files that ldd says *path* needs."""
    told = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    words = [line.split() for line in told.splitlines()]
    paths = [line[2] if "=>" in line else line[0] for line in words]
    return {Path(path).resolve() for path in paths if path.startswith("/")}


@pytest.mark.parametrize("name", ["ls", "tar", "apt-get", "qemu-img", "fio"])
def test_they_are_those_of_ldd(name: str) -> None:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    found, missing = Finder([Path("/")]).needs([(path, Path(path))])
    assert not missing
    assert {file.resolve() for file in found.values()} == ldd(path)


@pytest.fixture
def compiler() -> str:
    found = shutil.which("cc")
    if found is None:
        pytest.skip("there is no C compiler")
    return found


def link(compiler: str, target: Path, *words: str) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = target.parent / "source.c"
    source.write_text("int answer(void) { return 42; } int main(void) { return 0; }\n")
    words = ("-nostdlib", "-o", str(target), str(source), *words)
    subprocess.run([compiler, *words], check=True, timeout=60)
    return target


def test_a_package_is_searched_before_the_host(compiler: str, tmp_path: Path) -> None:
    library = link(compiler, tmp_path / "usr/lib/libown.so", "-shared", "-fPIC")
    tool = link(compiler, tmp_path / "usr/bin/tool", "-Wl,-e,main", "-L", str(library.parent),
                "-Wl,--no-as-needed", "-lown")  # fmt: skip
    found, missing = Finder([tmp_path, Path("/")]).needs([("/usr/bin/tool", tool)])
    assert missing == []
    assert found["/usr/lib/libown.so"] == library


def test_the_origin_of_a_program_is_its_place_in_the_guest(compiler: str, tmp_path: Path) -> None:
    library = link(compiler, tmp_path / "opt/x/lib/libown.so", "-shared", "-fPIC")
    tool = link(compiler, tmp_path / "opt/x/bin/tool", "-Wl,-e,main", "-L", str(library.parent),
                "-Wl,--no-as-needed", "-lown", "-Wl,-rpath,$ORIGIN/../lib")  # fmt: skip
    found, _ = Finder([tmp_path, Path("/")]).needs([("/opt/x/bin/tool", tool)])
    assert library in found.values()


def test_a_missing_library_is_named_with_who_needs_it(compiler: str, tmp_path: Path) -> None:
    library = link(compiler, tmp_path / "lib/libgone.so", "-shared", "-fPIC")
    tool = link(compiler, tmp_path / "tool", "-Wl,-e,main", "-L", str(library.parent),
                "-Wl,--no-as-needed", "-lgone")  # fmt: skip
    library.unlink()
    _, missing = Finder([Path("/")]).needs([("/tool", tool)])
    assert missing == [Missing("libgone.so", "/tool")]


def test_configured_directories_and_links_stay_inside_their_root(tmp_path: Path) -> None:
    (tmp_path / "etc/ld.so.conf.d").mkdir(parents=True)
    (tmp_path / "etc/ld.so.conf").write_text("include ld.so.conf.d/*.conf\n# /no\n/first\n")
    (tmp_path / "etc/ld.so.conf.d/x.conf").write_text("/second # why\n")
    (tmp_path / "second").mkdir()
    (tmp_path / "second/lib.so.1").write_bytes(b"x")
    (tmp_path / "first").mkdir()
    (tmp_path / "first/lib.so").symlink_to("/second/../second/lib.so.1")
    (tmp_path / "first/loop").symlink_to("loop")
    finder = Finder([tmp_path])
    assert finder.file("/first/lib.so") == tmp_path / "second/lib.so.1"
    assert finder.file("/first/loop") is None
    assert finder.file("/../../etc/ld.so.conf") == tmp_path / "etc/ld.so.conf"
