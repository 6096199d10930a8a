"""Containers as values: what they are made of, may use, and are connected to."""

from pyvirt.container.autostart import Autostart as Autostart
from pyvirt.container.container import Container as Container
from pyvirt.container.device import HostDevice as HostDevice
from pyvirt.container.limits import Limits as Limits
from pyvirt.container.limits import Throttle as Throttle
from pyvirt.container.mount import Bind as Bind
from pyvirt.container.mount import Mount as Mount
from pyvirt.container.mount import Tmpfs as Tmpfs
from pyvirt.container.network import HostNetwork as HostNetwork
from pyvirt.container.network import Interface as Interface
from pyvirt.container.network import Ipvlan as Ipvlan
from pyvirt.container.network import Macvlan as Macvlan
from pyvirt.container.network import Physical as Physical
from pyvirt.container.network import Veth as Veth
from pyvirt.container.network import Vlan as Vlan
from pyvirt.container.security import Seccomp as Seccomp
from pyvirt.container.stats import Pressure as Pressure
from pyvirt.container.stats import Stats as Stats
from pyvirt.rootfs import Busybox as Busybox
from pyvirt.rootfs import Debian as Debian
from pyvirt.rootfs import Directory as Directory
from pyvirt.rootfs import DockerArchive as DockerArchive
from pyvirt.rootfs import IdMap as IdMap
from pyvirt.rootfs import IdRange as IdRange
from pyvirt.rootfs import LoopImage as LoopImage
from pyvirt.rootfs import OciImage as OciImage
from pyvirt.rootfs import Overlay as Overlay
from pyvirt.rootfs import RootFS as RootFS
from pyvirt.rootfs import Tarball as Tarball

__all__ = [
    "Autostart",
    "Bind",
    "Busybox",
    "Container",
    "Debian",
    "Directory",
    "DockerArchive",
    "HostDevice",
    "HostNetwork",
    "IdMap",
    "IdRange",
    "Interface",
    "Ipvlan",
    "Limits",
    "LoopImage",
    "Macvlan",
    "Mount",
    "OciImage",
    "Overlay",
    "Physical",
    "Pressure",
    "RootFS",
    "Seccomp",
    "Stats",
    "Tarball",
    "Throttle",
    "Tmpfs",
    "Veth",
    "Vlan",
]
