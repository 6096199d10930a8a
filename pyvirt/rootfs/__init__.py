"""Root file systems as values: what a container finds at its ``/``, and how that is made.

`Busybox` is the default. What is taken from an archive was written by a stranger: nothing in
it leads out of the root, and every limit has a field.
"""

from pyvirt.rootfs.archives import DockerArchive as DockerArchive
from pyvirt.rootfs.archives import OciImage as OciImage
from pyvirt.rootfs.archives import Tarball as Tarball
from pyvirt.rootfs.busybox import Busybox as Busybox
from pyvirt.rootfs.debian import Debian as Debian
from pyvirt.rootfs.idmap import IdMap as IdMap
from pyvirt.rootfs.idmap import IdRange as IdRange
from pyvirt.rootfs.places import Directory as Directory
from pyvirt.rootfs.places import LoopImage as LoopImage
from pyvirt.rootfs.places import Made as Made
from pyvirt.rootfs.places import Overlay as Overlay
from pyvirt.rootfs.process import Process as Process
from pyvirt.rootfs.rootfs import RootFS as RootFS

__all__ = [
    "Busybox",
    "Debian",
    "Directory",
    "DockerArchive",
    "IdMap",
    "IdRange",
    "LoopImage",
    "Made",
    "OciImage",
    "Overlay",
    "Process",
    "RootFS",
    "Tarball",
]
