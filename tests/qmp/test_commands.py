from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from pyvirt.errors import SpecError, UnsupportedError
from pyvirt.qmp.commands import Commands, python_name
from pyvirt.qmp.stubs import stub


@pytest.fixture
def qmp(schema):
    return Commands(lambda: schema, lambda name, arguments, **options: (name, arguments, options))


def test_commands_are_completed(qmp, schema):
    names = dir(qmp)
    assert set(names) - {"execute"} == {python_name(name) for name in schema.commands}
    assert {"blockdev_add", "device_add", "query_status", "human_monitor_command"} <= set(names)
    assert repr(qmp) == f"<{len(schema.commands)} QMP commands>"


def test_every_command_is_documented_and_has_a_signature(qmp, schema):
    for name in map(python_name, schema.commands):
        command = getattr(qmp, name)
        inspect.signature(command)
        assert command.__name__ == name
        assert command.info.name in inspect.getdoc(command)


def test_a_signature_says_what_a_command_takes(qmp):
    assert str(inspect.signature(qmp.block_resize)) == (
        "(*, size: int, device: str = None, node_name: str = None) -> {}"
    )
    assert str(inspect.signature(qmp.device_add)).endswith("**properties: Any) -> {}")
    assert "**variant: by driver" in str(inspect.signature(qmp.blockdev_add))
    assert repr(qmp.stop) == "<QMP command stop() -> {}>"


def test_documentation_tells_members_variants_and_results(qmp):
    text = inspect.getdoc(qmp.netdev_add)
    assert "    id: str" in text
    assert "    hubport: hubid, netdev (optional)" in text
    text = inspect.getdoc(qmp.query_block)
    assert "    io-status (optional): 'ok' | 'failed' | 'nospace'" in text


def test_arguments_are_checked_and_sent_in_qemus_spelling(qmp):
    name, arguments, options = qmp.blockdev_add(driver="null-co", node_name="n")
    assert (name, arguments, options) == (
        "blockdev-add", {"driver": "null-co", "node-name": "n"}, {})  # fmt: skip
    assert qmp.device_add({"num-queues": 2}, driver="virtio-blk-pci")[1] == {
        "driver": "virtio-blk-pci", "num-queues": 2}  # fmt: skip
    assert qmp(timeout=3)(fds=(1,)).getfd(fdname="x")[2] == {"timeout": 3, "fds": (1,)}
    with pytest.raises(SpecError, match=r"block_resize\.sise is unknown"):
        qmp.block_resize(sise=3)


def test_the_raw_way_checks_nothing(qmp):
    assert qmp(timeout=3).execute("no-such", {"a_b": 1}, fds=(2,)) == (
        "no-such", {"a_b": 1}, {"timeout": 3, "fds": (2,)})  # fmt: skip


def test_an_unknown_command_is_an_attribute_that_is_not_there(qmp):
    with pytest.raises(UnsupportedError, match="did you mean 'query-status'"):
        getattr(qmp, "query_statu")  # noqa: B009 - as a completer asks
    assert not hasattr(qmp, "no_such_command")
    assert not hasattr(qmp, "_repr_html_")


def test_python_names():
    assert [python_name(n) for n in ("node-name", "from", "x.y")] == ["node_name", "from_", "x_y"]


# Stubs --------------------------------------------------------------------------------------

USE = """
from qemu_commands import AwaitedCommands, Commands

def right(qmp: Commands) -> str:
    qmp.blockdev_add(driver="qcow2", node_name="a", file={"driver": "file", "filename": "x"})
    qmp.device_add({"num-queues": 3}, driver="virtio-blk-pci", mac="x")
    for block in qmp.query_block():
        print(block["device"].upper(), block.get("inserted"))
    qmp.execute("x-anything", {"a": 1}, timeout=3)
    return qmp.query_status()["status"]

async def awaited(qmp: AwaitedCommands) -> bool:
    return (await qmp.query_status())["running"]

def wrong(qmp: Commands) -> None:
    qmp.blockdev_add(driver="qcw2", node_name="a")
    qmp.query_status()["colour"]
    qmp.block_resize(size="big")
    qmp.query_statu()
"""


def test_mypy_knows_a_qemu_by_its_stub(schema, tmp_path):
    pytest.importorskip("mypy")
    text = stub(schema, "QEMU 7.2", "qemu_commands")
    ast.parse(text)
    Path(tmp_path, "qemu_commands.pyi").write_text(text)
    Path(tmp_path, "use.py").write_text(USE)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path, "use.py",
         "qemu_commands.pyi"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    begin = USE.splitlines().index("def wrong(qmp: Commands) -> None:") + 2
    assert [line.split(": error")[0] for line in errors] == [
        f"use.py:{begin + n}" for n in range(4)
    ], done.stdout


def test_a_stub_is_the_same_each_time(schema):
    assert stub(schema) == stub(schema)
