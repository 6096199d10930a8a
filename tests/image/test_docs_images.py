"""The page about images is run: every example, and every command, shows what it says."""

from __future__ import annotations

import doctest
import re
import shutil
from pathlib import Path

import pytest
from writes import io, run

from pyvirt.cli import main

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-utils")

PAGE = (Path(__file__).parents[2] / "docs" / "images.md").read_text()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two images that the page speaks of, in the current directory."""
    monkeypatch.chdir(tmp_path)
    base, guest = Path("base.qcow2"), Path("guest.qcow2")
    run("qemu-img", "create", "-q", "-f", "qcow2", base, "64M")
    io(base, "write -P 0x41 0 2M", "write -P 0x42 10M 1M", "write -z 20M 1M")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", guest)
    run("qemu-img", "bitmap", "--add", guest, "backup")
    io(guest, "write -P 0x47 1M 64k")
    return tmp_path


def blocks(language: str) -> str:
    return "".join(re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


@pytest.mark.usefixtures("here")
def test_the_examples_show_what_they_say() -> None:
    pytest.importorskip("numpy")
    test = doctest.DocTestParser().get_doctest(blocks("python"), {}, "images.md", None, 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF | doctest.ELLIPSIS)
    runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
    assert len(test.examples) >= 30


@pytest.mark.usefixtures("here")
def test_the_commands_print_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.split(r"^\$ pyvirt ", blocks("console"), flags=re.MULTILINE)[1:]
    assert len(shown) == 4
    for part in shown:
        words, _, wanted = part.partition("\n")
        code = main(words.split())
        assert capsys.readouterr().out + (f"[{code}]\n" if code else "") == wanted
