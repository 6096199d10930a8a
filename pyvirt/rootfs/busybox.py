"""The default container: a static busybox and nothing else, the twin of the default guest."""

from __future__ import annotations

from pyvirt.fields import frozen
from pyvirt.guest import cpio
from pyvirt.guest.initramfs import applets
from pyvirt.guest.tree import Tree
from pyvirt.rootfs.rootfs import RootFS

_DIRECTORIES = {
    "/dev": 0o755, "/proc": 0o755, "/sys": 0o755, "/run": 0o755, "/mnt": 0o755,
    "/root": 0o700, "/var/log": 0o755, "/var/lib": 0o755, "/tmp": 0o1777, "/var/tmp": 0o1777,
}  # fmt: skip

_TEXTS = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "/etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/profile": "export PATH=/usr/bin PS1='\\u@\\h:\\w\\$ '\n",
    "/etc/shells": "/bin/sh\n",
    "/etc/resolv.conf": "",
    "/etc/os-release": 'NAME="pyvirt container"\nPRETTY_NAME="pyvirt default container"\n'
    "ID=pyvirt\n",
    # For busybox as process 1: it reaps, and on SIGUSR2 it ends all and itself.
    "/etc/inittab": "::sysinit:/usr/bin/true\n",
}


@frozen
class Busybox(RootFS):
    """A static busybox under all its names, in the merged layout, made in no time."""


def entries(busybox: bytes) -> list[cpio.Entry]:
    """The files of the default container, directories before what is in them."""
    tree = Tree()
    for path, mode in _DIRECTORIES.items():
        tree.directory(path, mode)
    for path, text in _TEXTS.items():
        tree.file(path, text.encode())
    tree.symlink("/var/run", "../run")
    tree.symlink("/etc/mtab", "../proc/self/mounts")
    tree.file("/usr/bin/busybox", busybox, 0o755)
    for name in applets(busybox):
        if f"/usr/bin/{name}" not in tree:
            tree.symlink(f"/usr/bin/{name}", "busybox")
    return list(tree.entries())
