"""Composes the initramfs of the default guest: contents → the entries of a cpio archive.

What runs in it: the agent is /init, process 1. Before it serves it runs /etc/pyvirt/init,
which is `drivers` (csrc/programs/drivers): that loads the modules for the hardware that is
there, runs the user's script, and goes on in the background for what is plugged later.

The size counts: under TCG Linux unpacks 1 MB in 4 ms and 1,000 entries in 60 ms, more when
they are compressed. So modules lie in it uncompressed, and without what is not used of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attrs import frozen

from pyvirt.errors import ProtocolError
from pyvirt.guest import cpio, modules, strip
from pyvirt.guest.hardware import DORMANT
from pyvirt.guest.modules import Module
from pyvirt.guest.tree import Tree

_DRIVERS = "/usr/lib/pyvirt/drivers"
_APPLETS = re.compile(rb"\0((?:[a-z0-9[._-]{1,31}\0){64,})")

_TEXTS = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "/etc/group": "root:x:0:\ntty:x:5:\ndisk:x:6:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost pyvirt\n::1 localhost pyvirt\n",
    "/etc/hostname": "pyvirt\n",
    "/etc/profile": "export PATH=/usr/bin PS1='\\u@\\h:\\w\\$ '\n",
    "/etc/shells": "/bin/sh\n",
    "/etc/resolv.conf": "",
    "/etc/os-release": 'NAME="pyvirt guest"\nPRETTY_NAME="pyvirt default guest"\nID=pyvirt\n',
}

# What udhcpc calls with the answer of the DHCP server in its environment.
_DHCP = """#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev "$interface" scope global
ip addr add "$ip/${mask:-24}" dev "$interface"
[ -z "$router" ] || ip route replace default via "${router%% *}" dev "$interface"
[ -z "$dns" ] || for server in $dns; do echo "nameserver $server"; done > /etc/resolv.conf
"""

# Linux's e100 drives no 82551 without its microcode, and QEMU's 82551 ignores what it is given:
# as much of nothing, in words and three indices into them (drivers/net/ethernet/intel/e100.c).
_MICROCODE = "/usr/lib/firmware/e100/d102e_ucode.bin", bytes(134 * 4 + 3)


@frozen
class Programs:
    """The executables that every default guest has, all of them static."""

    agent: bytes
    drivers: bytes
    busybox: bytes


@frozen
class File:
    """One file of the guest: its contents and permissions, or where a link points."""

    data: bytes = b""
    mode: int = 0o644
    link: str | None = None


def initramfs(
    programs: Programs,
    release: str,
    drivers: Mapping[str, tuple[Module, bytes]],
    load: Iterable[str],
    files: Mapping[str, File],
) -> list[cpio.Entry]:
    """The entries of an initramfs for the kernel *release*.

    *drivers* are modules in the order of their needs; those named in *load* are loaded whether
    there is hardware for them or not. *files* come last, and replace what they name.
    """
    tree = Tree()
    _skeleton(tree)
    _programs(tree, programs)
    if drivers:
        _modules(tree, f"/usr/lib/modules/{release}", drivers)
    tree.file("/etc/pyvirt/modules", "".join(f"{name}\n" for name in load).encode())
    for path, file in files.items():
        if file.link is None:
            tree.file(path, file.data, file.mode)
        else:
            tree.symlink(path, file.link)
    return list(tree.entries())


def applets(busybox: bytes) -> list[str]:
    """The names under which *busybox* can be called, from the table in its executable."""
    tables = [table for table in _APPLETS.findall(busybox) if b"\0busybox\0" in table]
    if not tables:
        raise ProtocolError("busybox", "has no table of applets", 0)
    return [name.decode() for name in tables[0].split(b"\0") if name]


def script(text: str) -> bytes:
    """The user's script as a file that can be executed."""
    full = text if text.startswith("#!") else f"#!/bin/sh\n{text}\n"
    return full.encode("utf-8", "surrogateescape")


def _skeleton(tree: Tree) -> None:
    for path in ("/dev", "/proc", "/sys", "/run", "/mnt", "/root", "/var/log", "/var/lib"):
        tree.directory(path)
    for path in ("/tmp", "/var/tmp"):
        tree.directory(path, 0o1777)
    tree.symlink("/var/run", "../run")
    tree.symlink("/etc/mtab", "../proc/self/mounts")
    # Linux opens it for process 1 before devtmpfs is mounted.
    tree.character("/dev/console", 5, 1)
    for path, text in _TEXTS.items():
        tree.file(path, text.encode())
    tree.file("/etc/pyvirt/dhcp", _DHCP.encode(), 0o755)


def _programs(tree: Tree, programs: Programs) -> None:
    tree.file("/usr/bin/busybox", programs.busybox, 0o755)
    for name in applets(programs.busybox):
        if f"/usr/bin/{name}" not in tree:
            tree.symlink(f"/usr/bin/{name}", "busybox")
    tree.file("/init", programs.agent, 0o755)
    tree.file(_DRIVERS, programs.drivers, 0o755)
    tree.symlink("/etc/pyvirt/init", _DRIVERS)
    tree.symlink("/usr/bin/modprobe", _DRIVERS)


def _modules(tree: Tree, folder: str, found: Mapping[str, tuple[Module, bytes]]) -> None:
    table = {name: _uncompressed(module) for name, (module, _) in found.items()}
    for name, (_, data) in found.items():
        tree.file(f"{folder}/{table[name].path}", strip.module(data, name))
    tree.file(f"{folder}/modules.dep", modules.modules_dep(table).encode())
    awake = {name: module for name, module in table.items() if name not in DORMANT}
    tree.file(f"{folder}/modules.alias", modules.modules_alias(awake).encode())
    tree.file(f"{folder}/modules.softdep", modules.modules_softdep(table).encode())
    if "e100" in table:
        tree.file(*_MICROCODE)


def _uncompressed(module: Module) -> Module:
    stem, _, _ = module.path.rpartition(".ko")
    return Module(module.name, f"{stem}.ko", module.depends, module.aliases, module.before)


