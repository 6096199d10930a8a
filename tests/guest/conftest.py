from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyvirt import VM, Disk, Guest, Nic, RunningVM


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "guest folder"
    path.mkdir()
    return str(path)


@pytest.fixture(scope="session")
def udp_echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program for guests: busybox has none that answers datagrams."""
    program = tmp_path_factory.mktemp("programs") / "udp-echo"
    source = Path(__file__).with_name("udp_echo.c")
    subprocess.run(["gcc", "-static", "-Os", "-s", "-o", program, source], check=True)
    return program


@pytest.fixture(scope="session")
def both(udp_echo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVM]:
    """A guest in which both agents answer, with an ext4 disk on /mnt and the user network."""
    image = tmp_path_factory.mktemp("disk") / "ext4.img"
    subprocess.run(["truncate", "-s", "32M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    guest = Guest(
        qga=True,
        modules=["ext4"],
        files={"/usr/bin/udp-echo": udp_echo},
        init="mount -t ext4 /dev/vda /mnt",
    )
    vm = VM(
        name="both",
        memory="512M",
        nics=[Nic()],
        disks=[Disk(image, format="raw")],
        boot=guest,
    )
    with vm.start() as running:
        yield running
