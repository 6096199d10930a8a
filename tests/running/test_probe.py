"""Probing a real QEMU, and finding the answer again without starting it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.qemu import BINARY, Died, needs_qemu, start

from pyvirt.errors import StartError, UnsupportedError
from pyvirt.qemu.option import Option
from pyvirt.running.host import probe as probing
from pyvirt.running.host.probe import probe

pytestmark = needs_qemu


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(probing, "_known", {})
    return tmp_path / "pyvirt" / "qemu"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(probing, "_known", {})
        yield probe()


def test_it_agrees_with_qemu(found):
    with start(machine="none") as qemu:
        version = qemu.cmd("query-version")["qemu"]
        machines = {m["name"]: m["cpu-max"] for m in qemu.cmd("query-machines")}
        cpus = {cpu["name"] for cpu in qemu.cmd("query-cpu-definitions")}
        listed = qemu.cmd("device-list-properties", typename="virtio-blk-pci")
        commands = {c["name"] for c in qemu.cmd("query-commands")}
    assert found.version == (version["major"], version["minor"], version["micro"])
    assert {m.name: m.cpu_max for m in found.machines.values()} == machines
    assert set(found.cpus) == cpus
    assert set(found.schema.commands) == commands
    properties = found.device("virtio-blk-pci").properties
    assert {p["name"]: p["type"] for p in listed} == {p.name: p.type for p in properties.values()}
    for entry in listed:
        info = properties[entry["name"]]
        assert info.default == entry.get("default-value")
        assert info.description == entry.get("description")


def test_what_it_says_of_devices_is_so(found):
    assert found.device("virtio-net-pci").express is True
    assert found.device("e1000").express is False
    assert found.device("usb-tablet").bus == "usb-bus"
    assert found.device("ICH9-LPC").user_creatable is False
    assert found.machine("q35").alias == "q35"
    assert {"raw", "qcow2", "nbd"} <= found.block_drivers
    assert {"user", "tap", "stream"} <= found.netdevs
    assert {"socket", "file", "pty"} <= found.chardevs
    assert {"memory-backend-memfd", "iothread"} <= found.objects
    assert {"tcg", "kvm"} <= found.accelerators
    assert "none" in found.displays
    assert "none" in found.audiodevs
    assert "emulator" in found.tpms


def test_a_device_that_kills_qemu_when_asked_about_is_not_there(found):
    """7.2 without its OpenGL module ends at ``device-list-properties virtio-gpu-gl-pci``."""
    try:
        with start(machine="none") as qemu:
            qemu.cmd("device-list-properties", typename="virtio-gpu-gl-pci")
    except Died:
        with pytest.raises(UnsupportedError):
            found.check([Option("device", {"driver": "virtio-gpu-gl-pci"})])
    else:
        assert found.device("virtio-gpu-gl-pci").bus == "PCI"


def test_the_second_time_starts_nothing(cache, monkeypatch):
    first = probe()
    (file,) = cache.iterdir()
    before = file.stat()
    monkeypatch.setattr(probing, "_known", {})
    monkeypatch.setattr(probing, "ask", None)
    assert probe() == first
    assert probe() is probe()
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def test_another_binary_is_asked_again(cache, tmp_path):
    copy = tmp_path / "my-qemu"
    copy.write_text(f'#!/bin/sh\nexec {shutil.which(BINARY)} "$@"\n')
    copy.chmod(0o755)
    first = probe(str(copy))
    copy.write_text(copy.read_text() + "# a newer one\n")
    os.utime(copy, ns=(1, 1))
    assert probe(str(copy)) == first
    assert len(list(cache.iterdir())) == 2


def test_a_damaged_cache_is_made_anew(cache, monkeypatch):
    first = probe()
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    monkeypatch.setattr(probing, "_known", {})
    assert probe() == first
    assert len(file.read_bytes()) > 1000


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "pyvirt").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(probing, "_known", {})
    assert "q35" in {machine.alias for machine in probe().machines.values()}


def test_several_processes_at_once_agree(cache):
    program = "from pyvirt.running.host.probe import probe; print(len(probe().to_bytes()))"
    words = [sys.executable, "-c", program]
    running = [
        subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        for _ in range(3)
    ]
    sizes = {process.communicate(timeout=120)[0] for process in running}
    assert len(sizes) == 1
    assert all(process.returncode == 0 for process in running)
    (file,) = cache.iterdir()
    assert file.stat().st_size == int(sizes.pop())


def test_no_program_is_said_before_anything(cache):
    with pytest.raises(UnsupportedError) as caught:
        probe("qemu-system-nothing")
    assert str(caught.value).startswith("the program qemu-system-nothing is not available")


def test_a_program_that_is_no_qemu_says_how_it_ended(cache):
    with pytest.raises(StartError) as caught:
        probe(shutil.which("ls"))
    assert caught.value.why == "exit code 2"
    assert "invalid option" in caught.value.words
    assert not cache.exists()
