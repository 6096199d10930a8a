"""Takes the uncompressed kernel out of a bzImage.

QEMU enters it through PVH, which spares the guest the decompression: on TCG that is most
of the boot (7.1 s to userspace for Debian's xz image, 2.95 s for what is inside it).
Layout: https://docs.kernel.org/arch/x86/boot.html, "Details of Header Fields".
"""

from __future__ import annotations

import struct

from pyvirt.errors import ProtocolError, UnsupportedError
from pyvirt.guest import elf, strip
from pyvirt.guest.unpack import unpack

_HEADER = struct.Struct("<4sH")  # "HdrS" and the version of the boot protocol, at 0x202
_PAYLOAD = struct.Struct("<II")  # offset and length of the payload, at 0x248
_OLDEST = 0x0208  # the first protocol that says where the payload is
_PVH_NOTE = (b"Xen", 18)  # XEN_ELFNOTE_PHYS32_ENTRY


def vmlinux(kernel: bytes, name: str = "the kernel") -> bytes:
    """The ELF kernel inside bzImage *kernel* (or *kernel* itself), as small as it can be."""
    inner = kernel if elf.is_elf(kernel) else unpack(_payload(kernel, name), name)
    if not elf.is_elf(inner):
        raise ProtocolError(name, "holds no ELF kernel", 0)
    if _PVH_NOTE not in {(owner, kind) for owner, kind, _ in elf.read(inner, name).notes()}:
        raise UnsupportedError("the PVH entry", name, "build the kernel with CONFIG_PVH")
    return strip.kernel(inner)


def _payload(kernel: bytes, name: str) -> bytes:
    if len(kernel) < 0x250:
        raise ProtocolError(name, "is too short for a Linux kernel", len(kernel))
    magic, version = _HEADER.unpack_from(kernel, 0x202)
    if magic != b"HdrS" or version < _OLDEST:
        raise ProtocolError(name, "is not a bzImage", 0x202)
    offset, length = _PAYLOAD.unpack_from(kernel, 0x248)
    setup = (kernel[0x1F1] or 4) + 1  # sectors of real-mode code before the kernel proper
    start = setup * 512 + offset
    if start + length > len(kernel):
        raise ProtocolError(name, "ends before its payload does", len(kernel))
    return kernel[start : start + length]
