"""Disks, CD-ROMs and floppies, and the block nodes behind them."""

from __future__ import annotations

from pyvirt.disk.disk import Disk
from pyvirt.disk.drive import Drive
from pyvirt.disk.format import FROM_IMAGE, Format, Luks, Qcow2, Raw
from pyvirt.disk.local import File, HostCDROM, HostDevice, Null
from pyvirt.disk.node import BlockNode, Node
from pyvirt.disk.remote import Gluster, Iscsi, Nbd, Nfs, Rbd, Ssh, Url
from pyvirt.disk.removable import CDROM, Floppy
from pyvirt.disk.secret import Secret
from pyvirt.disk.throttle import Throttle, ThrottleGroup

__all__ = [
    "CDROM",
    "FROM_IMAGE",
    "BlockNode",
    "Disk",
    "Drive",
    "File",
    "Floppy",
    "Format",
    "Gluster",
    "HostCDROM",
    "HostDevice",
    "Iscsi",
    "Luks",
    "Nbd",
    "Nfs",
    "Node",
    "Null",
    "Qcow2",
    "Raw",
    "Rbd",
    "Secret",
    "Ssh",
    "Throttle",
    "ThrottleGroup",
    "Url",
]
