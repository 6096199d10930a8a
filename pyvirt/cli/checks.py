"""What ``pyvirt doctor`` looks at. Each check is a function that gives findings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from pyvirt.errors import PyvirtError, UnsupportedError

if TYPE_CHECKING:
    from pyvirt.qemu.proof import Evidence

State = Literal["ok", "limited", "missing"]


@frozen
class Finding:
    """`about` what, how it is, in words, and what to do where that is not as good as it gets.

    `needed` is what no guest can start without.
    """

    about: str
    state: State
    words: str
    fix: str = ""
    needed: bool = False


def findings() -> Iterator[Finding]:
    """All findings; a check that itself goes wrong is one too."""
    for check in CHECKS:
        try:
            yield from check()
        except (PyvirtError, OSError) as error:
            yield Finding(check.__name__, "missing", str(error))


def kvm() -> Iterator[Finding]:
    """Whether KVM runs guests, as a guest showed."""
    from pyvirt.running.host.accel import prove

    proved = prove()
    evidence = proved.evidence
    if proved.name == "kvm" or evidence is None:
        yield Finding("KVM", "ok", proved.reason)
    else:
        words = f"{proved.reason}; guests run on TCG, which emulates and takes longer"
        yield Finding("KVM", "limited", words, _kvm_fix(evidence))


def _kvm_fix(evidence: Evidence) -> str:
    import errno

    match evidence.step, evidence.error:
        case "open", errno.EACCES:
            return "sudo usermod -aG kvm $USER, then log in again"
        case "open", _:
            return "sudo modprobe kvm_intel (or kvm_amd); in a VM, its host must allow nesting"
        case "architecture", _:
            return "use a machine with an x86-64 processor"
    return "run on a machine, or in a VM with nested virtualization, whose KVM is not emulated"


def qemu() -> Iterator[Finding]:
    """The QEMU on the PATH, and the devices that pyvirt describes and it lacks."""
    from pyvirt.qemu.lacking import INSTEAD
    from pyvirt.running.host.probe import probe

    binary = "qemu-system-x86_64"
    path = shutil.which(binary)
    if path is None:
        fix = "apt install qemu-system-x86"
        yield Finding("QEMU", "missing", f"there is no {binary}", fix, needed=True)
        return
    found = probe(binary)
    yield Finding("QEMU", "ok", f"{found.name}, {len(found.devices)} device models ({path})")
    lacks = [
        f"{name} ({instead})" for name, instead in INSTEAD.items() if name not in found.devices
    ]
    if lacks:
        yield Finding("devices", "limited", f"it lacks {', '.join(lacks)}", "use a newer QEMU")
    modules = [one for one in ("https", "ssh", "iscsi", "rbd") if one not in found.block_drivers]
    if modules:
        words = f"it cannot open {', '.join(modules)}"
        yield Finding("protocols", "limited", words, "apt install qemu-block-extra")


def tools() -> Iterator[Finding]:
    """Programs beside QEMU: which VMs want them, and the packages they are in."""
    from pyvirt.running.children.companion import PLACES

    for name, use, package in (
        ("qemu-img", "temporary disks", "qemu-utils"),
        ("swtpm", "Tpm()", "swtpm"),
        ("virtiofsd", "VirtioFs()", "virtiofsd (Debian 12: qemu-system-common)"),
        ("passt", "Nic(Passt())", "passt"),
    ):
        path = shutil.which(name) or shutil.which(name, path=os.pathsep.join(PLACES))
        if path is not None:
            yield Finding(name, "ok", path)
        else:
            yield Finding(name, "limited", f"not there; {use} needs it", f"apt install {package}")


def firmware() -> Iterator[Finding]:
    """UEFI for guests."""
    from pyvirt.running.host.firmware import descriptors

    found = list(descriptors())
    if not found:
        yield Finding("OVMF", "limited", "not there; firmware=OVMF() needs it", "apt install ovmf")
        return
    secure = any("secure-boot" in one.features for one in found)
    words = f"{len(found)} kinds of UEFI, {'with' if secure else 'without'} Secure Boot"
    yield Finding("OVMF", "ok", words)


def kernel() -> Iterator[Finding]:
    """The kernel of the default guest: installed, in the cache, or to be downloaded."""
    from pyvirt.running.guest import Cache, apt
    from pyvirt.running.guest.kernel import at_hand, meta_package

    found = next((one for one in at_hand(Cache()) if not one.lacks()), None)
    if found is not None:
        yield Finding("kernel", "ok", f"{found.release} ({found.image})")
        return
    try:
        package = apt.kernel_packages(meta_package())[0]
    except UnsupportedError as lack:
        fix = lack.hint or apt.NAME_A_KERNEL
        yield Finding("kernel", "missing", f"{lack.what} is not in {lack.where}", fix, needed=True)
        return
    words = f"{package.name} is downloaded at the first start ({package.size / 1e6:.0f} MB)"
    yield Finding("kernel", "ok", words)


def guest_programs() -> Iterator[Finding]:
    """The programs of the default guest."""
    from pyvirt._native import program

    for name in ("agent", "drivers"):
        if not Path(program(name)).is_file():
            fix = "apt install gcc libc6-dev, then install pyvirt again"
            yield Finding(f"guest's {name}", "missing", "it was not built", fix, needed=True)
    if shutil.which("busybox") is None and shutil.which("apt-get") is None:
        fix = "install a static busybox"
        yield Finding(
            "busybox", "missing", "not there, and no apt-get to fetch it", fix, needed=True
        )


def cache() -> Iterator[Finding]:
    """Where downloads and builds are kept, and how large that is."""
    from pyvirt.cli.cache import entries
    from pyvirt.cli.output import size
    from pyvirt.running.host.cache import cache_directory

    root = cache_directory()
    used = sum(entry.size for entry in entries(root))
    place = next(folder for folder in (root, *root.parents) if folder.is_dir())
    if not os.access(place, os.W_OK):
        fix = "set XDG_CACHE_HOME to a directory of yours"
        yield Finding("cache", "missing", f"{place} is not writable", fix, needed=True)
        return
    free = shutil.disk_usage(place).free
    words = f"{size(used)} in {root}, {size(free)} free"
    if free < 1 << 30:
        fix = "free some space; pyvirt cache remove --unused-for 7"
        yield Finding("cache", "limited", words, fix)
    else:
        yield Finding("cache", "ok", words)


def devices() -> Iterator[Finding]:
    """Device files that some descriptions want, and the right to use them."""
    for path, use, fix in (
        ("/dev/net/tun", "Tap()", "sudo modprobe tun"),
        ("/dev/vhost-net", "Tap(vhost=True)", "sudo modprobe vhost_net"),
        ("/dev/vhost-vsock", "Vsock()", "sudo modprobe vhost_vsock"),
    ):
        if not Path(path).exists():
            yield Finding(path, "limited", f"not there; {use} needs it", fix)
        elif not os.access(path, os.R_OK | os.W_OK):
            group = "sudo usermod -aG kvm $USER, then log in again"
            yield Finding(path, "limited", f"not yours to open; {use} needs it", group)
        else:
            yield Finding(path, "ok", f"for {use}")
    if os.geteuid() != 0:
        words = "not root: a Tap must exist already, or come from the bridge helper"
        yield Finding("taps", "limited", words, "use Nic(), or Nic(Bridge())")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    kvm, qemu, kernel, guest_programs, tools, firmware, devices, cache,
)  # fmt: skip
