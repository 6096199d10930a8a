"""What does not go together is refused at birth, naming the field."""

from __future__ import annotations

import pytest
from cases import value
from support.parts import golden
from support.qemu import Died, needs_qemu, start

from pyvirt.errors import SpecError
from pyvirt.qemu.option import Option

REFUSED = [
    ("Serial(index=4)", "index", "must be from 0 to 3"),
    ("Serial(model='pci-serial', irq=4)", "irq", "belongs to model isa-serial, not pci-serial"),
    ("Serial(model='usb-serial', wakeup=True)", "wakeup",
     "belongs to model isa-serial and pci-serial, not usb-serial"),
    ("Serial(always_plugged=True)", "always_plugged",
     "belongs to model usb-serial, not isa-serial"),
    ("Serial('a file')", "backend", "must be Backend"),
    ("Serial(id='0x')", "id", "must start with a letter and hold only [A-Za-z0-9_.-]"),
    ("VirtioSerialPort('')", "name", "must not be empty: the guest finds the port by it"),
    ("VirtioSerialPort('x', nr=0)", "nr", "must be from 1 to 510"),
    ("RingBuffer(size=1000)", "size", "must be a power of two"),
    ("RingBuffer(size='lots')", "size", "must be bytes or text such as '512M'"),
    ("Unix('x' * 108)", "path", "must be at most 107 bytes for a Unix socket"),
    ("Unix('é' * 54)", "path", "must be at most 107 bytes for a Unix socket"),
    ("Unix('x', tight=True)", "tight", "belongs to abstract sockets"),
    ("Unix('x', websocket=True)", "websocket",
     "must be a server: QEMU is no websocket client"),
    ("Unix('x', server=True, telnet=True, websocket=True)", "websocket",
     "cannot be combined with telnet"),
    ("Unix('x', server=True, reconnect=1)", "reconnect", "is for clients, not for a server"),
    ("Unix('x', wait=True)", "wait", "is for servers, not for a client"),
    ("Tcp(70000)", "port", "must be from 0 to 65535"),
    ("Tcp(1, to=2)", "to", "is for servers, not for a client"),
    ("Tcp(1, tls_authz='a')", "tls_authz", "must come with tls_creds"),
    ("CirrusVga(vgamem_mb=5)", "vgamem_mb", "must be one of 4, 8, 16"),
    ("VirtioGpu(gl=True, blob=True)", "blob", "cannot be combined with gl in QEMU's virtio-gpu"),
    ("VirtioGpu(max_outputs=17)", "max_outputs", "must be from 1 to 16"),
    ("card('voodoo')", "video", "must be one of none, std, cirrus, qxl, vmware, virtio"),
    ("Xhci(intrs=4)", "intrs", "belongs to model nec-usb-xhci, not qemu-xhci"),
    ("Uhci(firstport=0)", "firstport", "must come with masterbus"),
    ("Ohci(firstport=0)", "firstport", "must come with masterbus"),
    ("UsbTablet(head=0)", "head", "must come with display"),
    ("UsbMouse(usb_version=3)", "usb_version", "must be one of 1, 2"),
    ("UsbHost()", "vendorid", "or a place on the host must say which device"),
    ("UsbHost(hostdevice='/x', hostbus=1)", "hostdevice", "names the device by itself"),
    ("UsbHost(productid=1, hostbus=1)", "productid", "must come with vendorid"),
    ("SmartCardReader(certificates=['a'])", "certificates", "must be three names"),
    ("SmartCardReader(certificates='abc')", "certificates", "must be a list"),
    ("SmartCardReader(certificates=['a', 'b', 'c'], backend=Null())", "certificates",
     "cannot be combined with backend"),
    ("SmartCardReader(db='/x')", "db", "must come with certificates"),
    ("Rng(filename='/dev/random', egd=Null())", "egd", "cannot be combined with filename"),
    ("Rng(max_bytes=1)", "max_bytes", "must come with period"),
    ("Watchdog('explode')", "action",
     "must be one of reset, shutdown, poweroff, inject-nmi, pause, debug, none"),
    ("Audio(path='/x')", "path", "belongs to the driver wav"),
    ("Audio(server='x')", "server", "belongs to the driver pa"),
    ("Hda(codecs=[])", "codecs", "must be 1 to 15: an HDA link has 15 addresses"),
    ("Hda(codecs=['line'])", "codecs", "must be one of duplex, micro, output"),
    ("Vsock(2)", "guest_cid", f"must be from 3 to {0xFFFFFFFE}"),
    ("Plan9('/x', 'm' * 32)", "mount_tag", "must have 1 to 31 bytes"),
    ("Plan9('/x', 'm', security_model='none', fmode=0o600)", "fmode",
     "belongs to mapped security models"),
    ("VirtioFs('/a,b', 'm')", "source", "must have no comma: virtiofsd splits there"),
    ("VirtioFs('/a', 'm', queue_size=100)", "queue_size", "must be a power of two"),
    ("Ivshmem()", "size", "or memdev must be given, and not both"),
    ("Ivshmem(3)", "size", "must be a power of two"),
    ("Ivshmem(memdev='m', path='/x')", "path", "cannot be combined with memdev"),
    ("VfioPci()", "host", "or sysfsdev must be given, and not both"),
    ("VfioPci('eth0')", "host", "must be a PCI address such as 0000:01:00.0"),
    ("VfioPci('01:20.0')", "host", "must be a PCI address such as 0000:01:00.0"),
    ("FwCfg('opt/x')", "string", "or content or file must be given, and only one"),
    ("FwCfg('opt/x', '')", "string", "must not be empty: QEMU refuses an empty item"),
    ("FwCfg('x' * 56, 'y')", "name", "must have 1 to 55 bytes"),
    ("FwCfg('opt/x', 'a\\0b')", "string", "must be text without NUL"),
    ("Balloon(free_page_hint=True)", "free_page_hint", "must come with iothread"),
    ("Pvpanic(ioport=1)", "ioport", "belongs to model pvpanic, not pvpanic-pci"),
    ("Vmgenid('x')", "guid", "must be 'auto' or a UUID"),
    ("Tpm(version='1.2')", "version", "must be 2.0 for tpm-crb"),
    ("Tpm(key='/a,b')", "key", "must have no comma: swtpm splits there"),
    ("VirtioTablet(head=1)", "head", "must come with display"),
    ("Seed(bus='floppy')", "bus", "must be one of virtio, scsi, sata, ide, usb"),
    ("Vnc(password='123456789')", "password", "must have at most 8 bytes: VNC ignores the rest"),
    ("Vnc(path='/x', display=1)", "path", "cannot be combined with host or display"),
    ("Vnc(websocket=True)", "websocket", "must come with host or display"),
    ("Vnc(display=1, websocket=0)", "websocket", "must be from 1 to 65535"),
    ("Vnc(to=3)", "to", "must come with host or display"),
    ("Vnc(tls_authz='a')", "tls_authz", "must come with tls_creds"),
    ("Vnc(sasl_authz='a')", "sasl_authz", "must come with sasl"),
    ("Spice(addr='::1')", "addr", "must come with port or tls_port"),
    ("Spice(path='/x', port=1)", "path", "cannot be combined with port or tls_port"),
    ("Spice(tls_port=1)", "tls_port", "must come with x509_dir"),
    ("Spice(port=1, gl=True)", "gl", "works on a Unix socket only"),
    ("Display('gtk', rendernode='/x')", "rendernode", "belongs to egl-headless and dbus"),
    ("Display('gtk', addr='x')", "addr", "belongs to dbus"),
    ("Display(gl='on')", "gl", "needs a display that draws: egl-headless is one"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "field", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refused_at_birth(line, field, reason):
    with pytest.raises(SpecError) as caught:
        value(line)
    assert (caught.value.field, caught.value.reason) == (field, reason)
    assert str(caught.value).startswith(f"{field} {reason}, got ")


#: The same mistakes, past the description: a good value with properties that make it bad.
QEMU_REFUSES = {
    "websocket client": [("chardev", {"backend": "socket", "id": "c", "path": "x",
                                      "websocket": True})],
    "reconnecting server": [("chardev", {"backend": "socket", "id": "c", "path": "x",
                                         "server": True, "reconnect": 1})],
    "odd ring buffer": [("chardev", {"backend": "ringbuf", "id": "c", "size": 1000})],
    "free page hint alone": [("device", {"driver": "virtio-balloon-pci",
                                         "free-page-hint": True})],
    "empty fw_cfg": [("fw_cfg", {"name": "opt/x", "string": ""})],
    "long fw_cfg name": [("fw_cfg", {"name": "x" * 56, "string": "y"})],
    "firstport alone": [("device", {"driver": "ich9-usb-uhci1", "firstport": 2,
                                    "masterbus": "nowhere"})],
    "bad guid": [("device", {"driver": "vmgenid", "guid": "x"})],
    "too many outputs": [("device", {"driver": "virtio-gpu-pci", "max_outputs": 17})],
    "odd memory": [("object", {"qom-type": "memory-backend-ram", "id": "m", "size": 3 << 20,
                               "share": True}),
                   ("device", {"driver": "ivshmem-plain", "memdev": "m"})],
    "9p modes": [("fsdev", {"fsdriver": "local", "id": "f", "path": "/", "fmode": "0600",
                            "security_model": "none"})],
}  # fmt: skip


@needs_qemu
@pytest.mark.parametrize("name", QEMU_REFUSES)
def test_qemu_refuses_it_too(name):
    with pytest.raises(Died):
        start([Option(kind, properties) for kind, properties in QEMU_REFUSES[name]])


def test_a_password_is_in_no_repr_and_on_no_command_line():
    for line in ("Vnc(password='geheim')", "Spice(password='geheim')"):
        found = value(line)
        assert "geheim" not in repr(found)
        assert "geheim" not in str(golden(found))
