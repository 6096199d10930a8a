"""Kernels: of the user's own, compressed or not, and the default guest's under UEFI."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.qemu import needs_qemu

from pyvirt import OVMF, VM, Guest, Kernel, Nic, SpecError, UnsupportedError
from pyvirt.guest import cmdline, cpio
from pyvirt.guest.tree import Tree
from pyvirt.machine.firmware import UefiFiles
from pyvirt.running.guest.build import Built, build
from pyvirt.running.host import firmware

pytestmark = [needs_qemu, pytest.mark.timeout(240)]

LIMIT = 120.0


@pytest.fixture(scope="module")
def built() -> Built:
    return build()


@pytest.fixture
def uefi() -> OVMF:
    try:
        firmware.find(UefiFiles("firmware", "q35"))
    except UnsupportedError:
        pytest.skip("the package ovmf is not installed")
    return OVMF()


def words(built: Built) -> str:
    return " ".join((built.append, *cmdline.timer("tcg"), "and.a=word,of our own"))


def test_a_compressed_kernel_and_a_compressed_initrd(built: Built, tmp_path: Path) -> None:
    initrd = tmp_path / "initrd, gzipped"
    initrd.write_bytes(gzip.compress(built.initramfs.read_bytes(), 1))
    boot = Kernel(built.packed, initrd, append=words(built))
    with VM(accel="tcg", boot=boot, agents=("pyvirt",), nics=[Nic()]).start() as running:
        running.wait_for(agent=True, timeout=LIMIT)
        said = running.run("cat /proc/cmdline").check().stdout
        assert said.rstrip().endswith("and.a=word,of our own")
        assert running.guest_info().kernel in built.packed.name


def test_a_kernel_without_anything_says_what_it_misses(built: Built) -> None:
    boot = Kernel(built.kernel, append="console=ttyS0 panic=-1")
    with VM(accel="tcg", boot=boot, arguments=["-no-reboot"]).start() as running:
        match = running.wait_for(serial=r"Kernel panic - not syncing: (.*)\n", timeout=LIMIT)
        assert match is not None
        assert "Unable to mount root fs" in match.group(1)
        assert running.wait(LIMIT).reason == "guest-reset"


def test_an_initrd_of_ones_own_is_run(built: Built, tmp_path: Path) -> None:
    """Nothing of pyvirt's is in it: a shell script and the busybox of the host."""
    initrd = tmp_path / "own.cpio"
    initrd.write_bytes(b"".join(cpio.newc(list(_own()))))
    boot = Kernel(built.kernel, initrd, append="console=ttyS0 quiet panic=-1")
    with VM(accel="tcg", boot=boot).start() as running:
        running.wait_for(serial=r"(?m)^I am process 1$", timeout=LIMIT)
        assert running.wait(LIMIT).reason == "guest-shutdown"


def _own() -> Iterator[cpio.Entry]:
    busybox = Path("/usr/bin/busybox")
    if not busybox.exists():
        pytest.skip("the package busybox-static is not installed")
    script = "#!/bin/busybox sh\necho I am process $$\n/bin/busybox poweroff -f\n"
    tree = Tree()
    tree.file("/bin/busybox", busybox.read_bytes(), 0o755)
    tree.file("/init", script.encode(), 0o755)
    tree.character("/dev/console", 5, 1)
    return tree.entries()


def test_the_default_guest_boots_by_uefi(uefi: OVMF) -> None:
    with VM(accel="tcg", firmware=uefi, nics=[Nic()]).start() as running:
        running.wait_for(agent=True, timeout=LIMIT)
        assert "efi" in running.run("ls /sys/firmware").check().stdout.split()
        assert "10.0.2.15" in running.run("ip addr").check().stdout


def test_a_kernel_that_uefi_cannot_start_is_refused(uefi: OVMF, built: Built) -> None:
    with pytest.raises(UnsupportedError) as caught:
        VM(accel="tcg", firmware=uefi, boot=Guest(kernel=built.kernel)).start()
    assert str(caught.value).startswith("an EFI stub is not available in ")
    assert str(caught.value).endswith("name a bzImage in Guest.kernel")


def test_secure_boot_would_refuse_the_default_guests_modules() -> None:
    with pytest.raises(SpecError) as caught:
        VM(firmware=OVMF(secure_boot=True, enrolled=True))
    assert caught.value.field == "firmware.enrolled"
