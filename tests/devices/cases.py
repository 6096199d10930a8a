"""Every device value with every field: what the golden file and the real QEMU are asked.

Each line is Python. `ALONE` are classes of which a machine has one, so that each of their
lines gets a QEMU of its own. `ABSENT` cannot start here; QEMU is asked for the names and
types of their properties instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyvirt.devices
from pyvirt.device import Device
from pyvirt.disk.throttle import Throttle
from pyvirt.qemu.part import Part

PARTS = """
Serial()
Serial(Null(), index=1)
Serial(Null(), iobase=0x3e8, irq=4, baudbase=230400, wakeup=True)
Serial(Null(), model="pci-serial", baudbase=230400, wakeup=True)
Serial(Null(), model="usb-serial", always_plugged=True)
Serial(Null(), id="com2", properties={"irq": 3, "iobase": 0x2f8})
Parallel()
Parallel(Null(), index=1)
Parallel(Null(), iobase=0x3bc, irq=7)
VirtioSerial()
VirtioSerial(max_ports=8, vectors=4, emergency_write=False)
VirtioSerialPort("org.pyvirt.agent.0")
VirtioSerialPort("org.example, with a comma", Captured(), nr=5)
VirtioSerialPort("org.example.2", Null(), controller="virtio-serial0")
VirtioConsole()
VirtioConsole(Null(), name="console", nr=7)
VirtioConsole(Null(), controller="virtio-serial0")
DebugConsole()
DebugConsole(Null(), iobase=0x402, readback=0)
StdVga()
StdVga(secondary=True, vgamem_mb=32, xres=800, yres=600, xmax=1024, ymax=768, refresh_rate=75000, edid=False)
CirrusVga(vgamem_mb=8, blitter=False)
Qxl()
Qxl(secondary=True, ram_size_mb=32, vram_size_mb=32, vram64_size_mb=64, vgamem_mb=8, surfaces=512, max_outputs=2, revision=4, xres=800, yres=600)
VmwareSvga(vgamem_mb=32)
VirtioGpu()
VirtioGpu(vga=False, max_outputs=4, xres=800, yres=600, edid=False, max_hostmem="64M")
VirtioGpu(gl=True)
VirtioGpu(vga=False, gl=True, blob=False)
VirtioGpu(vga=False, blob=True)
BochsDisplay(vgamem="32M", xres=800, yres=600, xmax=1024, ymax=768, refresh_rate=75000, edid=False)
Ramfb()
AtiVga(model="rv100", vgamem_mb=32, guest_hwcursor=True)
Xhci()
Xhci("nec-usb-xhci", p2=8, p3=4, streams=False, msi="on", msix="off", intrs=8, slots=32)
Ehci()
Ehci("ich9-usb-ehci2", maxframes=64)
Uhci()
Uhci("piix4-usb-uhci", bandwidth=640, maxframes=64)
Uhci("ich9-usb-uhci1", masterbus="ehci1.0", firstport=0)
Ohci()
Ohci(3, masterbus="ehci1.0", firstport=2)
Ich9Usb()
UsbTablet()
UsbTablet(usb_version=1, display="video0", head=0, controller="xhci0", port="2")
UsbMouse(usb_version=1)
UsbKeyboard(usb_version=1, display="video0")
UsbWacomTablet(pcap="/tmp/pyvirt-usb.pcap")
UsbHub(ports=4, port_power=True)
UsbHost(vendorid=0x1234, productid=0x5678, guest_reset=False, guest_resets_all=True, pipeline=False)
UsbHost(hostbus=1, hostaddr=4, isobufs=8, isobsize=16, suppress_remote_wake=False, loglevel=1)
UsbHost(hostbus=1, hostport="1.2", bootindex=3)
UsbHost(hostdevice="/dev/bus/usb/001/004")
UsbRedir()
UsbRedir(Null(), filter="-1:-1:-1:-1:1", streams=False, bootindex=2, debug=3)
SmartCardReader()
SmartCardReader(backend=Null(), port="7")
SmartCardReader(certificates=["id", "sign", "enc"], db="/etc/pki/nssdb")
UsbMtp("/usr/share/doc", desc="papers", readonly=True)
Rng()
Rng(filename="/dev/urandom", max_bytes=1024, period=1000)
Rng(egd=Null())
Watchdog()
Watchdog("pause")
Watchdog("none", model="ib700")
Hda()
Hda(codecs=["duplex", "micro", "output"], model="intel-hda", msi="off", mixer=False, use_timer=False)
Hda(audio="speaker")
Ac97()
Es1370(audio=Audio("wav", path="/tmp/pyvirt, test.wav"))
Sb16(iobase=0x240, irq=7, dma=3, dma16=6)
UsbAudio(audio=Audio(timer_period=5000, output={"frequency": 48000, "channels": 2, "format": "s16", "fixed-settings": True}, input={"mixing-engine": False}), multi=True, buffer=1024)
UsbAudio(audio=Audio("pa", server="/run/pulse", properties={"out": {"name": "sink"}}))
VirtioSound(jacks=1, streams=2, chmaps=0)
Vsock(3)
Vsock(0x1234, seqpacket="off")
Plan9("/usr/share/doc", "papers")
Plan9("/usr/share/doc", "papers, mapped", security_model="mapped-file", readonly=True, writeout="immediate", multidevs="remap", fmode=0o640, dmode=0o750, throttling=Throttle(bps_total=1000000, iops_total=100, iops_size=4096))
VirtioFs("/usr/share/doc", "papers")
VirtioFs("/usr/share/doc", "all", cache="always", sandbox="chroot", xattr=True, num_request_queues=2, queue_size=512, bootindex=4, program="/usr/libexec/virtiofsd", arguments=["--syslog"])
VirtioFs("/usr/share/doc", "other", socket="/run/virtiofsd.sock")
Ivshmem("1M")
Ivshmem("4M", path="/tmp/pyvirt-ivshmem", master="on")
Ivshmem(memdev="shared0")
IvshmemDoorbell("/run/ivshmem.sock", vectors=4, master="off")
VfioPci("01:00.0")
VfioPci("0000:01:00.1", display="off", romfile="/usr/share/rom.bin", rombar=False, bootindex=1)
VfioPci(sysfsdev="/sys/bus/mdev/devices/8e0c9f0e-4b0d-4f0c-9c5a-1f3b4ad0c0de")
FwCfg("opt/org.example/text", "a,b=c d")
FwCfg("opt/org.example/bytes", content=bytes(range(256)))
FwCfg("opt/org.example/file", file="/etc/hostname", id="blob")
Balloon()
Balloon(deflate_on_oom=True, free_page_reporting=True, free_page_hint=False, page_poison=False, guest_stats_polling_interval=7)
Balloon(free_page_hint=True, iothread="io0")
Pvpanic()
Pvpanic("pvpanic", events=1, ioport=0x510)
Vmgenid()
Vmgenid("8f5f2013-09a7-4e77-8b38-6eb94652ca1e")
Tpm()
Tpm(model="tpm-tis", version="1.2", ppi=False)
Tpm(state="/var/lib/tpm, one", key="/etc/tpm.key", program="/usr/bin/swtpm", arguments=["--log", "level=1"])
HostTpm()
HostTpm("/dev/tpm1", cancel_path="/sys/class/tpm/tpm1/device/cancel", model="tpm-tis", ppi=False)
VirtioKeyboard(display="video0", head=0)
VirtioMouse(wheel_axis=False)
VirtioMouse(display="video0", head=1)
VirtioTablet(display="video0", head=0, wheel_axis=False)
VirtioInputHost("/dev/input/event0")
Seed({"users": ["default"]}, network_config={"version": 2}, meta_data={"local-hostname": "a"}, vendor_data="#!/bin/sh")
Seed(bus="scsi")
Seed(bus="sata")
Seed(bus="ide")
Seed(bus="usb", address={"port": "3"})
Device("edu", {"dma_mask": 4095})
Device("pci-testdev", {"membar": 1048576}, id="probe", group="other")
Device("usb-wacom-tablet", {"serial": "abc"})
Device("isa-debug-exit", {"iobase": 0x504}, bus="isa")
Vnc()
Vnc(path="/run/vnc, one.sock", password="geheim", id="screen")
Vnc(host="::1", display=7, to=9, password="", websocket=True, share="force-shared", lossy=True, non_adaptive=True, key_delay_ms=5, power_control=True, head="video0")
Vnc(display=3, websocket=5980, tls_creds="tls0", tls_authz="authz0", sasl=True, sasl_authz="authz1", audiodev="sound0-audio", properties={"reverse": False})
Spice()
Spice(port=5930, tls_port=5931, addr="::1", password="secret, and long", x509_dir="/etc/pki", tls_ciphers="DEFAULT")
Spice(path="/run/spice, one.sock", sasl=True, image_compression="quic", jpeg_wan_compression="never", zlib_glz_wan_compression="always", streaming_video="filter", disable_copy_paste=True, disable_agent_file_xfer=True, agent_mouse=False, playback_compression=False, seamless_migration=True, gl=True, rendernode="/dev/dri/renderD128")
Display()
Display("egl-headless", rendernode="/dev/dri/renderD128", gl="on")
Display("dbus", addr="unix:path=/run/bus", properties={"p2p": False})
"""  # noqa: E501

BACKENDS = """
Captured()
Captured(limit="1M")
Captured(logfile="/tmp/log, one", logappend=True)
Piped()
File("/dev/null", append=True)
File("/dev/null", logfile="/dev/null", mux=True)
Pipe("/run/pipe")
Pty()
Stdio(signal=False)
Null()
RingBuffer(size="4K")
Unix("/tmp/pyvirt, test.sock", server=True)
Unix("pyvirt-abstract", abstract=True, tight=False, server=True, telnet=True)
Unix("/run/peer.sock", reconnect=3)
Tcp(0, server=True)
Tcp(0, "localhost", server=True, wait=False, to=0, ipv4=True, ipv6=False, nodelay=True, telnet=True)
Tcp(0, server=True, websocket=True)
Tcp(4000, "::1", tls_creds="tls0", tls_authz="authz0", server=True, wait=True)
Udp(4000)
Udp(4000, "localhost", localaddr="127.0.0.1", localport=0, ipv4=True, ipv6=False)
HostSerial("/dev/ttyS0")
HostParallel("/dev/parport0")
SpiceChannel("vdagent")
SpicePort("org.spice.console.0")
VdAgent(clipboard=True, mouse=False)
Chardev("vc", {"cols": 80, "rows": 25})
"""


def lines(text: str) -> list[str]:
    """The cases of one of the texts above."""
    return [line for line in text.splitlines() if line]


def value(line: str) -> Any:
    """The value that a line describes."""
    return eval(
        line,
        {"Device": Device, "Throttle": Throttle, **{n: getattr(pyvirt.devices, n) for n in NAMES}},
    )


def part(line: str, folder: Path = Path("/tmp")) -> Part:
    """The part that a line describes, with its files in `folder` instead of ``/tmp``."""
    found = value(line.replace("/tmp/", f"{folder}/"))
    assert isinstance(found, Part)
    return found


NAMES = pyvirt.devices.__all__
GOLDEN = Path(__file__).parent.parent / "golden" / "devices.txt"
