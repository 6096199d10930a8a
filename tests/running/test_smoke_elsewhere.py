"""The blocking face where an event loop runs already: in a coroutine, and in a notebook's cell."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from support.qemu import needs_qemu

pytestmark = [needs_qemu, pytest.mark.timeout(300)]

SMOKE = Path(__file__).with_name("test_smoke.py")

IN_A_LOOP = """
import asyncio, sys, pytest

async def main():
    asyncio.get_running_loop().set_debug(True)
    return pytest.main(sys.argv[1:])

sys.exit(asyncio.run(main()))
"""

# As ipykernel does it: the shell runs each cell as a coroutine of a loop that goes on.
IN_IPYTHON = """
import asyncio, sys
from IPython.core.interactiveshell import InteractiveShell

async def cell(shell, text):
    transformed = shell.transform_cell(text)
    done = await shell.run_cell_async(text, transformed_cell=transformed)
    done.raise_error()
    return done.result

async def main():
    shell = InteractiveShell.instance()
    shell.user_ns["words"] = sys.argv[1:]
    await cell(shell, "import pytest")
    return await cell(shell, "pytest.main(words)")

sys.exit(asyncio.run(main()))
"""

AWAITED_IN_IPYTHON = """
import asyncio
from IPython.core.interactiveshell import InteractiveShell

CELLS = [
    "import pyvirt; from pyvirt import VM, Firmware, aio",
    "vm = VM(boot=Firmware(), agents=(), memory='64M', accel='tcg'); vm",
    "running = await aio.start(vm)",
    "await running.status()",
    "running._repr_html_()",
    "(await running.stop()).reason",
    "with vm.start() as blocking: state = blocking.status()",
    "state",
]

async def main():
    shell = InteractiveShell.instance()
    for text in CELLS:
        transformed = shell.transform_cell(text)
        done = await shell.run_cell_async(text, transformed_cell=transformed)
        done.raise_error()
        if isinstance(done.result, str):
            print("->", done.result[:60].replace("\\n", " "))

asyncio.run(main())
"""


def python(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `script` in a Python of its own, warnings of forgotten things being errors."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", script, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


def needs_ipython() -> None:
    if importlib.util.find_spec("IPython") is None:
        pytest.skip("IPython is not installed")


@pytest.mark.parametrize("where", ["a running event loop", "IPython"])
def test_the_smoke_tests_pass_in(where: str, tmp_path: Path) -> None:
    if where == "IPython":
        needs_ipython()
    script = IN_IPYTHON if where == "IPython" else IN_A_LOOP
    words = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={tmp_path / 'inner'}"]
    done = python(script, *words, str(SMOKE))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def test_a_notebook_awaits_and_waits() -> None:
    needs_ipython()
    done = python(AWAITED_IN_IPYTHON)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line[3:] for line in done.stdout.splitlines() if line.startswith("-> ")]
    assert (told[0], told[2:]) == ("running", ["host-qmp-quit", "running"])
    assert told[1].startswith("<")
