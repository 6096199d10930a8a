"""Descriptions of every kind there is: what reprs and description files are tried on."""

from __future__ import annotations

import datetime
from importlib import import_module
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
from devices.cases import BACKENDS, PARTS, lines

from pyvirt.qemu.part import Part

DISK = """
Disk("a, b.qcow2")
Disk("a.img", "raw", bus="scsi", controller="lsi53c895a", alone=True, wwn="0x5000c50015ea71ac", serial="S", rotation_rate=7200, cache="none", aio="native", discard="unmap", detect_zeroes="unmap", bootindex=1, logical_block_size="4K", physical_block_size="4K")
Disk("b.qcow2", backing=None, throttle=Throttle(bps_total="10M", iops_total=100, bps_total_max="20M"), iothread=True, queues=2, snapshot=True, properties={"x-enable": True})
Disk("b.qcow2", backing=Qcow2("base.qcow2", backing=Raw("base.raw")), address={"addr": "0x5"}, id="root", werror="stop", rerror="report")
Disk(HostDevice("/dev/sdz", aio="native"), bus="sata", model="Rocket", cache="directsync")
Disk(Nbd("/run/nbd.sock"), throttle="limits")
Disk(Url("https://example.org/image.qcow2", username="u", readahead="1M"), "qcow2", snapshot=True)
Disk(Ssh("h", "/image.raw", user="u"))
Disk(Nfs("h", "/image.raw"))
Disk(Iscsi("10.0.0.1", "iqn.2026-01.org.example:disk"))
Disk(Rbd("pool", "image", snapshot="s"))
Disk(Gluster("volume", "image.raw", ["10.0.0.1", "10.0.0.2"]))
Disk(Null(size="1G", latency_ns=1000), id="nothing")
Disk(Raw("parts.img", offset="1M", size="64M"))
Disk(Format("vmdk", "a.vmdk"))
Disk(Qcow2("a.qcow2", lazy_refcounts=True, cache_size="8M", overlap_check="cached"))
Disk(Qcow2("a.qcow2", key=Secret(file=Path("/etc/key"))))
Disk(Luks("a.luks", Secret(file=Path("/etc/key"))))
Disk(Node("blkdebug", {"image": File("x.raw", locking="off"), "inject-error": [{"event": "read_aio"}]}))
CDROM()
CDROM("a.iso", bus="scsi", bootindex=0)
CDROM(HostCDROM("/dev/sr0"))
Floppy()
Floppy("boot.img", drive_type="144")
ThrottleGroup("limits", Throttle(iops_read=10, iops_read_max=20, iops_read_max_length=3))
"""  # noqa: E501

NIC = """
Nic()
Nic(None, model="e1000", mac="52:54:00:00:00:01", bootindex=1)
Nic(User(net="10.1.0.0/24", host="10.1.0.1", dns="10.1.0.2", ipv6_net="fd00::/64", restrict=True, hostname="h", dnssearch=["a", "b"], tftp="/srv/tftp", bootfile="pxe", forwards=[Forward(8080, 80), Forward(5353, 53, proto="udp", host_address="0.0.0.0", guest_address="10.1.0.15")], guest_forwards=[GuestForward(address="10.1.0.9", port=7, command="cat")]))
Nic(Tap(ifname="tap7", bridge="br0", vhost=True), queues=4, rate=Rate(receive="10M", send="1M"), offloads=Offloads(guest_tso4=False), control=Control(ctrl_vlan=False), mtu=1400, packed=True)
Nic(Tap(fds=[3, 4]), queues=2)
Nic(Bridge(br="br1"))
Nic(Hub(3, User()))
Nic(Passt(forwards=[Forward(2222, 22)]))
Nic(Socket(listen="127.0.0.1:4000"))
Nic(Stream(Unix("/run/net.sock"), server=True))
Nic(Stream(Inet("127.0.0.1", 4000)))
Nic(Dgram(local=Fd(5)))
Nic(Dgram(local=Inet("127.0.0.1", 4001), remote=Inet("127.0.0.1", 4002)))
Nic(L2tpv3(src="10.0.0.1", dst="10.0.0.2", txsession=1))
Nic(Vde(sock="/run/vde"))
Nic(VhostUser(path="/run/vhost.sock"))
Nic(VhostVdpa("/dev/vhost-vdpa-0"))
Nic(Netdev("user", {"restrict": True}), model="rtl8139", dump="/tmp/a.pcap")
Nic(Stream(Vsock(3, 4)))
"""  # noqa: E501

MACHINE = """
Machine()
Machine("pc-i440fx-7.2", acpi=False)
Machine("q35", rtc=RTC(datetime.datetime(2026, 1, 2, 3, 4, 5), clock="vm", driftfix="slew"), hotplug_ports=9, max_ram_below_4g="2G", properties={"memory-encryption": "sev0"})
CPU(8, "max", flags=["+avx2", "-hle"], sockets=2, dies=1, cores=2, threads=2, maximum=8, properties={"hv-time": True}, pins={0: 1, 3: [2, 3]})
IOThread("io0", poll_max_ns=1000, pins=[1])
Memory("1G", slots=4, maximum="4G", backend="anonymous", merge=False)
Memory("512M", backend="file", path="/dev/hugepages", prealloc=True)
Memory(nodes=[NumaNode("256M", cpus=[0], distances={1: 21}), NumaNode("256M", cpus=[1])])
Memory(nodes=[NumaNode("256M", cpus=[0]), NumaNode("256M", cpus=[1])], hmat=[Locality(0, 1, latency=5), Cache(0, "10K", 1)])
DIMM("128M")
NVDIMM("/tmp/nv", "256M", label_size="128K")
VirtioMem("512M", requested="128M", block_size="2M")
VirtioPmem("/tmp/pmem", "64M")
Rom("/usr/share/rom.bin")
SeaBIOS()
QBoot()
OVMF(secure_boot=True, store="/var/lib/vars, one.fd")
Actions(reboot="shutdown", panic="pause")
Smbios(bios=BiosInfo(vendor="V", version="1"), system=System(manufacturer="M", serial="S, 1"), board=Board(product="P"), chassis=Chassis(asset="A"), processor=Processor(manufacturer="C"), memory=MemoryModule(manufacturer="D"), strings=["a", "b"])
"""  # noqa: E501

BOOT = """
Kernel("vmlinuz", "initrd.img", append="console=ttyS0")
Firmware("cd", menu=True, splash_time=5, strict=True)
Guest()
Guest(files={"/etc/a b": b"x\\xff", "/opt/tool": Path("/usr/bin/env")}, binaries=["fio"], packages=["iperf3"], modules=["dummy"], init="echo hi", qga=True, append="quiet")
Guest(init=Path("/tmp/init"), kernel="/boot/vmlinuz")
"""  # noqa: E501

VMS = """
VM()
VM(name="a b", cpus=2, memory="1G", machine="pc", accel="tcg", uuid="8f5f2013-09a7-4e77-8b38-6eb94652ca1e", paused=True, arguments=["-global", "x=y"], agents=["qga"])
VM(disks=[Disk("a.qcow2", bootindex=0), CDROM()], nics=[Nic(), Nic(model="e1000")], iothreads=[IOThread("io0")], displays=[Vnc()], firmware=SeaBIOS())
VM(smbios=Smbios(system=System(serial="S")), actions=Actions(panic="none"))
VM(serials=[], agents=[], boot=Firmware(), devices=[Device("edu")])
"""  # noqa: E501


def _names() -> dict[str, Any]:
    """What the lines may say: all of disk, nic, machine, boot; not all names are unique."""
    names: dict[str, Any] = {}
    for module in ("devices", "disk", "nic", "machine", "boot", "device", "guest", "vm"):
        home = import_module(f"pyvirt.{module}")
        names |= {name: getattr(home, name) for name in dir(home) if name[0].isupper()}
    return names | {
        kind.__name__: kind
        for kind in (IPv4Address, IPv4Network, IPv6Address, IPv6Network, Path, UUID)
    }


def _home(module: str) -> dict[str, Any]:
    home = import_module(f"pyvirt.{module}")
    return _names() | {name: getattr(home, name) for name in home.__all__} | _MORE


def names_of(module: str) -> dict[str, Any]:
    """What an example in a docstring of `module` may use: all descriptions, its module first."""
    home = module.split(".")[1] if "." in module else "vm"
    whole = import_module(f"pyvirt.{home}")
    listed = {name: getattr(whole, name) for name in getattr(whole, "__all__", ())}
    return _names() | _MORE | listed | vars(import_module(module))


_MORE = {"datetime": datetime, "passphrase": "secret"}

#: Every description with the names that are needed to evaluate its repr.
CORPUS: list[tuple[str, dict[str, Any]]] = [
    *((line, _home("devices")) for line in [*lines(PARTS), *lines(BACKENDS)]),
    *((line, _home("disk")) for line in lines(DISK)),
    *((line, _home("nic")) for line in lines(NIC)),
    *((line, _home("machine")) for line in lines(MACHINE)),
    *((line, _names() | _MORE) for line in [*lines(BOOT), *lines(VMS)]),
]


def descriptions() -> list[Any]:
    """The values themselves."""
    return [eval(line, names) for line, names in CORPUS]


def parts() -> list[Part]:
    """Those that a VM takes as disks, cards or devices."""
    return [found for found in descriptions() if isinstance(found, Part)]


def classes() -> set[type]:
    """All public classes of descriptions."""
    found = set()
    for module in ("devices", "disk", "nic", "machine", "boot", "device", "guest", "vm"):
        home = import_module(f"pyvirt.{module}")
        for name in getattr(home, "__all__", dir(home)):
            value = getattr(home, name)
            if (
                isinstance(value, type)
                and attrs.has(value)
                and value.__module__.startswith(home.__name__)
            ):
                found.add(value)
    return found
