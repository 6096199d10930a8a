"""Taps opened for QEMU: made for it, so that nothing stays when it ends, or the user's own."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from contextlib import ExitStack

from pyvirt.errors import UnsupportedError
from pyvirt.nic import traffic
from pyvirt.nic.rate import Rate
from pyvirt.qemu.need import TapFds

# linux/if_tun.h
TUNSETIFF, TUNGETIFF = 0x400454CA, 0x800454D2
IFF_TAP, IFF_NO_PI, IFF_MULTI_QUEUE, IFF_VNET_HDR = 0x0002, 0x1000, 0x0100, 0x4000

# linux/sockios.h
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
SIOCGIFMTU, SIOCSIFMTU = 0x8921, 0x8922
SIOCGIFHWADDR, SIOCSIFHWADDR = 0x8927, 0x8924
SIOCBRADDIF = 0x89A2
IFF_UP = 0x1

_REQUEST = 40  # sizeof(struct ifreq)


def open_tap(need: TapFds) -> list[int]:
    """One descriptor for each queue of the tap, ready for QEMU.

    A tap made here ends with the last of them. Raises `UnsupportedError` saying what this
    host or process lacks, and `OSError` naming the interface.
    """
    with ExitStack() as undo:
        made = need.ifname is None or not _exists(need.ifname)
        name, fds = need.ifname or "", []
        for _queue in range(need.queues):
            fd = _open_tun()
            undo.callback(os.close, fd)
            name = _attach(fd, name, need, made)
            fds.append(fd)
        _set_up(name, need, made)
        undo.pop_all()
    return fds


def tap_name(fd: int) -> str:
    """The name of the interface to which a tap's descriptor belongs."""
    request = fcntl.ioctl(fd, TUNGETIFF, bytes(_REQUEST))
    return request[:16].rstrip(b"\0").decode()


def limit(ifname: str, rate: Rate | None) -> None:
    """Hold the tap to `rate` from now on, whatever it was before; None takes limits off.

    Raises `UnsupportedError` where the kernel lacks what it takes or this process may not.
    """
    index = socket.if_nametoindex(ifname)
    receive, send = (None, None) if rate is None else (rate.receive, rate.send)
    with _netlink() as link:
        # What the kernel may lack comes first: a refusal then leaves the other limit alone.
        _tell(link, ifname, traffic.unpoliced(index), without=True)
        if rate is not None and send is not None:
            try:
                for message in traffic.policing(index, send, rate.bucket(send)):
                    _tell(link, ifname, message)
            except (OSError, UnsupportedError):
                _tell(link, ifname, traffic.unpoliced(index), without=True)
                raise
        if rate is not None and receive is not None:
            _tell(link, ifname, traffic.shaping(index, receive, rate.bucket(receive)))
        else:
            _tell(link, ifname, traffic.unshaped(index), without=True)


def _tell(link: socket.socket, ifname: str, message: bytes, *, without: bool = False) -> None:
    """Send one message; `without` accepts that there was nothing to take away."""
    link.send(message)
    number = traffic.error(link.recv(65536))
    if number and not (without and number in (errno.ENOENT, errno.EINVAL)):
        raise _refused(number, ifname)


def _refused(number: int, ifname: str) -> Exception:
    if number == errno.EPERM:
        return _unprivileged(f"limiting the rate of {ifname}")
    if number in (errno.ENOENT, errno.EOPNOTSUPP):
        hint = "limits need its modules sch_tbf, sch_ingress, cls_matchall and act_police"
        return UnsupportedError(f"this rate limit of {ifname}", "the running kernel", hint)
    return OSError(number, os.strerror(number), ifname)


def _exists(ifname: str) -> bool:
    # /sys would show the network namespace in which it was mounted, which may be another.
    try:
        socket.if_nametoindex(ifname)
    except OSError:
        return False
    return True


def _open_tun() -> int:
    path = "/dev/net/tun"
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise UnsupportedError(path, "this host", "load the kernel's module tun") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise UnsupportedError(path, "this process", "it needs read and write") from error
        raise


def _attach(fd: int, ifname: str, need: TapFds, made: bool) -> str:
    """Make `fd` a queue of the tap; the name it has."""
    flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if need.vnet_header else 0)
    several = need.queues > 1
    try:
        return _claim(fd, ifname, flags | (IFF_MULTI_QUEUE if several else 0))
    except PermissionError as error:
        doing = "making" if made else "opening"
        raise _unprivileged(f"{doing} the tap {ifname}".strip()) from error
    except OSError as error:
        if error.errno != errno.EINVAL or made:
            raise
        return _attach_otherwise(fd, ifname, flags, several)


def _attach_otherwise(fd: int, ifname: str, flags: int, several: bool) -> str:
    """The kernel wants one that exists as it was made: for one queue, or for several."""
    try:
        name = _claim(fd, ifname, flags | (0 if several else IFF_MULTI_QUEUE))
    except OSError as error:
        raise OSError(error.errno, "it is not a tap", ifname) from error
    if several:
        hint = f"make it so: ip tuntap add dev {ifname} mode tap multi_queue"
        raise UnsupportedError("more than one queue", ifname, hint)
    return name


def _claim(fd: int, ifname: str, flags: int) -> str:
    request = struct.pack("16sH", os.fsencode(ifname), flags)
    try:
        fcntl.ioctl(fd, TUNSETIFF, request.ljust(_REQUEST, b"\0"))
    except OSError as error:
        busy = error.errno == errno.EBUSY
        why = "the tap is in use by another process" if busy else os.strerror(error.errno or 0)
        raise OSError(error.errno, why, ifname or "tap") from error
    return tap_name(fd)


def _unprivileged(doing: str) -> UnsupportedError:
    return UnsupportedError(
        doing,
        "this process",
        "it needs CAP_NET_ADMIN: run as root, or let root make the tap once for this user"
        " (ip tuntap add dev NAME mode tap user USER; ip link set NAME up master BRIDGE)",
    )


def _set_up(name: str, need: TapFds, made: bool) -> None:
    """What it is not yet: of the user's own tap, often nothing is left to do."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            if made:
                _hide_address(control, name)
            if need.mtu is not None:
                _set_mtu(control, name, need.mtu)
            if need.bridge is not None:
                _join(control, name, need.bridge)
            _raise(control, name)
        except PermissionError as error:
            raise _unprivileged(f"setting up {name}") from error
    if need.receive is not None or need.send is not None:
        limit(name, Rate(receive=need.receive, send=need.send, burst=need.burst))


def _hide_address(control: socket.socket, name: str) -> None:
    """Give a new tap a high MAC address: a bridge takes on the lowest among its ports."""
    answer = fcntl.ioctl(control, SIOCGIFHWADDR, _request(name))
    family, octets = answer[16:18], answer[18:24]
    fcntl.ioctl(control, SIOCSIFHWADDR, _request(name, family + b"\xfe" + octets[1:]))


def _set_mtu(control: socket.socket, name: str, mtu: int) -> None:
    (now,) = struct.unpack_from("=i", fcntl.ioctl(control, SIOCGIFMTU, _request(name)), 16)
    if now == mtu:
        return
    try:
        fcntl.ioctl(control, SIOCSIFMTU, _request(name, struct.pack("=i", mtu)))
    except PermissionError:
        raise
    except OSError as error:
        raise OSError(error.errno, f"it takes no MTU of {mtu}", name) from error


def _join(control: socket.socket, name: str, bridge: str) -> None:
    if not _exists(bridge):
        hint = f"make it: ip link add {bridge} type bridge"
        raise UnsupportedError(f"the bridge {bridge}", "this host", hint)
    port = socket.if_nametoindex(name)
    if _master(port) == socket.if_nametoindex(bridge):
        return
    try:
        fcntl.ioctl(control, SIOCBRADDIF, _request(bridge, struct.pack("=i", port)))
    except PermissionError:
        raise
    except OSError as error:
        words = {
            errno.EBUSY: f"it belongs to another bridge than {bridge}",
            errno.EOPNOTSUPP: f"{bridge} is not a bridge",
        }
        why = words.get(error.errno or 0, f"it cannot join {bridge}")
        raise OSError(error.errno, why, name) from error


def _master(index: int) -> int:
    """The number of the bridge to which an interface belongs, 0 for none."""
    with _netlink() as link:
        link.send(traffic.get_link(index))
        return traffic.master(link.recv(65536))


def _netlink() -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    link.bind((0, 0))
    return link


def _raise(control: socket.socket, name: str) -> None:
    (flags,) = struct.unpack_from("=H", fcntl.ioctl(control, SIOCGIFFLAGS, _request(name)), 16)
    if not flags & IFF_UP:
        fcntl.ioctl(control, SIOCSIFFLAGS, _request(name, struct.pack("=H", flags | IFF_UP)))


def _request(name: str, value: bytes = b"") -> bytes:
    """A ``struct ifreq``."""
    return os.fsencode(name).ljust(16, b"\0") + value.ljust(_REQUEST - 16, b"\0")
