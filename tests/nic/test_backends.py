"""Back ends as options: every field, and every combination that QEMU refuses."""

from __future__ import annotations

import socket

import pytest

from pyvirt.errors import SpecError
from pyvirt.nic import (
    Bridge,
    Dgram,
    Fd,
    Forward,
    GuestForward,
    Hub,
    Inet,
    L2tpv3,
    Netdev,
    Nic,
    Passt,
    Rate,
    Socket,
    Stream,
    Tap,
    Unix,
    User,
    Vde,
    VhostUser,
    VhostVdpa,
    Vsock,
)
from pyvirt.nic.backend import Wire
from pyvirt.qemu.need import GivenFds, Need, Peer, TapFds, VhostFds
from pyvirt.qemu.option import Late
from pyvirt.qemu.part import At
from pyvirt.qemu.render import argv

WIRE = Wire("n")
QUEUED = Wire("n", queues=4)
VHOST = Wire("n", vhost=True)


def netdev(backend, wire=WIRE) -> dict:
    """The properties of the last netdev of `backend`, without its id."""
    options = [item for item in backend.options(wire) if not isinstance(item, Need)]
    assert options[-1].kind == "netdev"
    assert options[-1].properties["id"] == wire.id
    return {key: value for key, value in options[-1].properties.items() if key != "id"}


def needs(backend, wire=WIRE) -> list[Need]:
    return [item for item in backend.options(wire) if isinstance(item, Need)]


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        (User(), {}),
        (User(net="10.1.0.0/24"), {"net": "10.1.0.0/24"}),
        (User(net="10.1.0.7/255.255.255.0"), {"net": "10.1.0.0/24"}),
        (User(host="10.0.2.9"), {"host": "10.0.2.9"}),
        (User(dns="1.1.1.1"), {"dns": "1.1.1.1"}),
        (User(dhcpstart="10.0.2.50"), {"dhcpstart": "10.0.2.50"}),
        (User(ipv4=False), {"ipv4": False}),
        (User(ipv6=False), {"ipv6": False}),
        (User(ipv6_net="fd00::/56"), {"ipv6-prefix": "fd00::", "ipv6-prefixlen": 56}),
        (User(ipv6_host="fec0::9"), {"ipv6-host": "fec0::9"}),
        (User(ipv6_dns="2001:db8::1"), {"ipv6-dns": "2001:db8::1"}),
        (User(restrict=True), {"restrict": True}),
        (User(hostname="a,b c"), {"hostname": "a,b c"}),
        (User(domainname="example.org"), {"domainname": "example.org"}),
        (User(dnssearch=["a", "b"]), {"dnssearch": [{"str": "a"}, {"str": "b"}]}),
        (User(tftp="/srv/a,b"), {"tftp": "/srv/a,b"}),
        (User(bootfile="/pxelinux.0"), {"bootfile": "/pxelinux.0"}),
        (User(tftp_server_name="s"), {"tftp-server-name": "s"}),
        (User(smb="/srv", smbserver="10.0.2.4"), {"smb": "/srv", "smbserver": "10.0.2.4"}),
        (User(forwards=[Forward(8080, 80)]), {"hostfwd": [{"str": "tcp:127.0.0.1:8080-:80"}]}),
        (User(forwards=[Forward(0, 53, "udp", host_address="0.0.0.0", guest_address="10.0.2.20")]),
         {"hostfwd": [{"str": "udp:0.0.0.0:0-10.0.2.20:53"}]}),
        (User(guest_forwards=[GuestForward(address="10.0.2.100", port=7, command="cat -v")]),
         {"guestfwd": [{"str": "tcp:10.0.2.100:7-cmd:cat -v"}]}),
        (User(properties={"restrict": False}), {"restrict": False}),
    ],
)  # fmt: skip
def test_a_field_of_the_user_network(backend, expected):
    assert netdev(backend) == {"type": "user", **expected}


def test_a_guest_forward_may_have_a_character_device():
    chardev = {"backend": "socket", "path": "/run/x"}
    user = User(guest_forwards=[GuestForward(address="10.0.2.9", port=7, chardev=chardev)])
    first, _ = user.options(WIRE)
    assert first.kind == "chardev"
    assert first.properties == {**chardev, "id": "n-guestfwd0"}
    assert netdev(user)["guestfwd"] == [{"str": "tcp:10.0.2.9:7-chardev:n-guestfwd0"}]


def test_the_address_of_the_first_guest_is_known():
    assert str(User().guest) == "10.0.2.15"
    assert str(User(net="10.1.0.0/16").guest) == "10.1.2.15"
    assert str(User(net="192.168.7.0/28").guest) == "192.168.7.15"
    assert str(User(dhcpstart="10.0.2.40").guest) == "10.0.2.40"


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        (Bridge(), {"type": "bridge", "br": "br0"}),
        (Bridge(br="b", helper="/h"), {"type": "bridge", "br": "b", "helper": "/h"}),
        (Socket(listen=":1234"), {"type": "socket", "listen": ":1234"}),
        (Socket(connect="h:1"), {"type": "socket", "connect": "h:1"}),
        (Socket(mcast="230.0.0.1:1"), {"type": "socket", "mcast": "230.0.0.1:1"}),
        (Socket(udp="h:1", localaddr=":2"), {"type": "socket", "udp": "h:1", "localaddr": ":2"}),
        (Stream(Inet("h", 5, to=9, ipv4=True, ipv6=False, keep_alive=True, mptcp=False)),
         {"type": "stream", "server": False,
          "addr": {"type": "inet", "host": "h", "port": "5", "to": 9, "ipv4": True, "ipv6": False,
                   "keep-alive": True, "mptcp": False}}),
        (Stream(Unix("/a,b"), server=True),
         {"type": "stream", "server": True, "addr": {"type": "unix", "path": "/a,b"}}),
        (Stream(Unix("x", abstract=True)),
         {"type": "stream", "server": False,
          "addr": {"type": "unix", "path": "x", "abstract": True}}),
        (Stream(Vsock(3, 99)),
         {"type": "stream", "server": False, "addr": {"type": "vsock", "cid": "3", "port": "99"}}),
        (Stream(Fd(7)), {"type": "socket", "fd": Late("n")}),
        (Stream(Fd(7), server=True),
         {"type": "stream", "server": True, "addr": {"type": "fd", "str": Late("n")}}),
        (Dgram(local=Inet("a", 1), remote=Inet("b", 2)),
         {"type": "dgram", "local": {"type": "inet", "host": "a", "port": "1"},
          "remote": {"type": "inet", "host": "b", "port": "2"}}),
        (Dgram(remote=Inet("230.0.0.1", 2)),
         {"type": "dgram", "remote": {"type": "inet", "host": "230.0.0.1", "port": "2"}}),
        (Dgram(local=Unix("/l"), remote=Unix("/r")),
         {"type": "dgram", "local": {"type": "unix", "path": "/l"},
          "remote": {"type": "unix", "path": "/r"}}),
        (Dgram(local=Fd(7)), {"type": "dgram", "local": {"type": "fd", "str": Late("n")}}),
        (VhostUser("/s", vhostforce=True),
         {"type": "vhost-user", "chardev": "n-chardev", "vhostforce": True}),
        (VhostVdpa("/dev/vhost-vdpa-0"),
         {"type": "vhost-vdpa", "vhostdev": "/dev/vhost-vdpa-0"}),
        (Hub(3), {"type": "hubport", "hubid": 3}),
        (L2tpv3(src="a", dst="b", txsession=1),
         {"type": "l2tpv3", "src": "a", "dst": "b", "txsession": 1}),
        (L2tpv3(src="a", dst="b", txsession=1, rxsession=2, udp=True, srcport=3, dstport=4,
                ipv6=False, txcookie=5, rxcookie=6, cookie64=True, counter=False,
                pincounter=True, offset=7),
         {"type": "l2tpv3", "src": "a", "dst": "b", "txsession": 1, "rxsession": 2, "udp": True,
          "srcport": "3", "dstport": "4", "ipv6": False, "txcookie": 5, "rxcookie": 6,
          "cookie64": True, "counter": False, "pincounter": True, "offset": 7}),
        (Vde(sock="/c", port=1, group="g", mode=0o700),
         {"type": "vde", "sock": "/c", "port": 1, "group": "g", "mode": 448}),
        (Netdev("netmap", {"ifname": "vale0:1"}), {"type": "netmap", "ifname": "vale0:1"}),
    ],
)  # fmt: skip
def test_a_back_end_is_its_netdev(backend, expected):
    assert netdev(backend) == expected


def test_queues_reach_the_back_ends_that_have_them():
    assert netdev(VhostUser("/s"), QUEUED)["queues"] == 4
    assert netdev(VhostVdpa("/d"), QUEUED)["queues"] == 4
    assert netdev(Tap(script="no"), QUEUED)["queues"] == 4
    assert netdev(Netdev("af-xdp", {"ifname": "eth0"}), QUEUED)["queues"] == 4
    assert needs(Tap(), QUEUED) == [TapFds("n", queues=4)]


def test_a_vhost_user_back_end_has_a_socket():
    chardev, _ = VhostUser("/a,b", server=True, reconnect=1).options(WIRE)
    assert argv([chardev]) == [
        "-chardev", "socket,id=n-chardev,path=/a,,b,server=on,wait=off,reconnect=1"
    ]  # fmt: skip


def test_a_hub_may_have_an_uplink():
    options = list(Hub(2, User(ipv6=False)).options(WIRE))
    assert [option.properties for option in options] == [
        {"type": "user", "id": "n-uplink", "ipv6": False},
        {"type": "hubport", "id": "n-uplinkport", "hubid": 2, "netdev": "n-uplink"},
        {"type": "hubport", "id": "n", "hubid": 2},
    ]


def test_pyvirt_opens_a_tap():
    tap = Tap(ifname="t0", bridge="br0", mtu=1400, vnet_hdr=False, sndbuf="1M")
    wire = Wire("n", rate=Rate(receive=1, send=2), mtu=9000)
    assert needs(tap, wire) == [
        TapFds("n", "t0", "br0", vnet_header=False, mtu=1400, receive=1, send=2)
    ]
    assert netdev(tap) == {"type": "tap", "fds": Late("n"), "sndbuf": 1048576}
    assert needs(Tap(), Wire("n", mtu=9000)) == [TapFds("n", mtu=9000)]


def test_vhost_is_taken_where_it_is_there():
    assert needs(Tap(), VHOST) == [TapFds("n"), VhostFds("n-vhost", optional=True)]
    assert needs(Tap(vhost=True, poll_us=50), VHOST)[1] == VhostFds("n-vhost", optional=False)
    assert netdev(Tap(poll_us=50), VHOST) == {
        "type": "tap", "fds": Late("n"), "vhostfds": Late("n-vhost"), "poll-us": 50,
    }  # fmt: skip
    assert "vhostfds" not in netdev(Tap(vhost=False), VHOST)
    assert "vhostfds" not in netdev(Tap())
    options = [item for item in Tap().options(VHOST) if not isinstance(item, Need)]
    assert argv(options, {"n": "5", "n-vhost": "6"})[1] == (
        '{"type":"tap","id":"n","fds":"5","vhostfds":"6"}'
    )
    # Where /dev/vhost-net cannot be opened, the start supplies nothing.
    assert argv(options, {"n": "5", "n-vhost": ""})[1] == '{"type":"tap","id":"n","fds":"5"}'


def test_vhost_is_for_virtio_alone_and_not_for_a_dump():
    at = At("nic0")
    kinds = {type(item) for item in Nic(Tap(), model="e1000").options(at)}
    assert VhostFds not in kinds
    assert VhostFds in {type(item) for item in Nic(Tap()).options(at)}
    assert VhostFds not in {type(item) for item in Nic(Tap(), dump="x").options(at)}


def test_qemu_opens_a_tap_for_a_script():
    tap = Tap(ifname="t0", script="/etc/qemu-ifup", vhost=True, vnet_hdr=False)
    assert needs(tap, VHOST) == []
    assert netdev(tap, VHOST) == {
        "type": "tap", "ifname": "t0", "script": "/etc/qemu-ifup", "downscript": "no",
        "vnet_hdr": False, "vhost": True,
    }  # fmt: skip


def test_open_descriptors_are_copied():
    assert needs(Tap(fds=[5, 6]), Wire("n", queues=2)) == [GivenFds("n", fds=(5, 6))]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert needs(Stream(Fd(theirs))) == [GivenFds("n", fds=(theirs.fileno(),))]


def test_passt_holds_the_other_end():
    passt = Passt(
        interface="eth0", address=["10.0.0.2"], gateway=["10.0.0.1"], dns=["1.1.1.1", "::1"],
        gateway_mac="52-54-00-00-00-01", forwards=[Forward(8080, 80), Forward(53, 53, "udp")],
        arguments=["--no-ra"],
    )  # fmt: skip
    (need,) = needs(passt, Wire("n", mtu=1400))
    assert isinstance(need, Peer)
    words = [word if isinstance(word, str) else "<fd>" for word in need.arguments]
    assert words == [
        "--foreground", "--quiet", "--fd", "<fd>", "--interface", "eth0",
        "--mac-addr", "52:54:00:00:00:01", "--mtu", "1400", "--address", "10.0.0.2",
        "--gateway", "10.0.0.1", "--dns", "1.1.1.1", "--dns", "::1",
        "--tcp-ports", "127.0.0.1/8080:80", "--udp-ports", "127.0.0.1/53:53", "--no-ra",
    ]  # fmt: skip
    assert netdev(passt) == {"type": "socket", "fd": Late("n")}


def tcp(**given):
    return GuestForward(**{"address": "10.0.2.100", "port": 7, "command": "cat", **given})


REFUSED = [
    (lambda: User(ipv4=False, ipv6=False), "ipv6", "must be on when ipv4 is off"),
    (lambda: User(ipv4=False, net="10.0.0.0/24"), "net", "needs ipv4, which is off"),
    (lambda: User(ipv6=False, ipv6_dns="fec0::3"), "ipv6_dns", "needs ipv6, which is off"),
    (lambda: User(net="10.0.0.0/3"), "net",
     "must be an IPv4 network such as '10.0.2.0/24', /4 to /30"),
    (lambda: User(net="10.0.2.0"), "net",
     "must be an IPv4 network such as '10.0.2.0/24', /4 to /30"),
    (lambda: User(ipv6_net="fec0::/127"), "ipv6_net",
     "must be an IPv6 network such as 'fec0::/64', /1 to /126"),
    (lambda: User(host="10.0.3.2"), "host", "must belong to the network 10.0.2.0/24"),
    (lambda: User(dhcpstart="10.0.3.2"), "dhcpstart", "must belong to the network 10.0.2.0/24"),
    (lambda: User(dns="1.1.1.1", restrict=True), "dns", "must belong to the network 10.0.2.0/24"),
    (lambda: User(dns="10.0.2.2"), "dns", "must be different from host"),
    (lambda: User(dhcpstart="10.0.2.3"), "dhcpstart", "must be different from host and DNS"),
    (lambda: User(net="10.0.0.0/30"), "dhcpstart", "must be different from host and DNS"),
    (lambda: User(ipv6_host="fd00::2"), "ipv6_host", "must belong to the network fec0::/64"),
    (lambda: User(dns="x"), "dns", "must be an IPv4 address"),
    (lambda: User(hostname="a" * 33), "hostname", "must be 1 to 32 bytes: libslirp cuts the rest"),
    (lambda: User(domainname=""), "domainname", "must be 1 to 255 bytes: QEMU takes no more"),
    (lambda: User(bootfile="é" * 64), "bootfile", "must be 1 to 127 bytes: BOOTP carries no more"),
    (lambda: User(smbserver="10.0.2.4"), "smbserver", "needs smb, the directory to serve"),
    (lambda: User(forwards=["tcp::1-:2"]), "forwards", "must be Forward"),
    (lambda: User(guest_forwards=[tcp(address="10.0.3.1")]), "guest_forwards",
     "must belong to the network 10.0.2.0/24"),
    (lambda: User(guest_forwards=[tcp(address="10.0.2.3")]), "guest_forwards",
     "conflicts with host or DNS"),
    (lambda: Forward(1, 0), "guest", "must be from 1 to 65535"),
    (lambda: Forward(1, 2, "sctp"), "proto", "must be one of tcp, udp"),
    (lambda: Forward(1, 2, host_address="::1"), "host_address", "must be an IPv4 address"),
    (lambda: tcp(chardev={"backend": "null"}), "command",
     "or chardev must be given, and not both"),
    (lambda: tcp(command=None, chardev={}), "chardev", "must name its backend"),
    (lambda: Tap(ifname="a" * 16), "ifname",
     "must be 1 to 15 bytes without '/', ':', '%' or space"),
    (lambda: Tap(bridge="a/b"), "bridge", "must be 1 to 15 bytes without '/', ':', '%' or space"),
    (lambda: Tap(fds=[5], ifname="t0"), "ifname", "is invalid with fds"),
    (lambda: Tap(fds=[5], script="no"), "script", "is invalid with fds"),
    (lambda: Tap(script="x", bridge="br0"), "bridge", "is not set by QEMU, which runs the script"),
    (lambda: Tap(vhost=False, poll_us=1), "poll_us", "needs vhost, which is off"),
    (lambda: Socket(), "listen", "or exactly one of connect, mcast, udp is required"),
    (lambda: Socket(listen=":1", udp="a:1"), "listen",
     "or exactly one of connect, mcast, udp is required"),
    (lambda: Socket(udp="a:1"), "localaddr", "is mandatory with udp"),
    (lambda: Socket(listen=":1", localaddr="x"), "localaddr", "is not valid with listen"),
    (lambda: Stream("unix:/x"), "addr", "must be Address"),
    (lambda: Unix("/" + "a" * 107), "path", "must be at most 107 bytes for a Unix socket"),
    (lambda: Fd("x"), "fd", "must be an open descriptor"),
    (lambda: Dgram(), "local", "is required, unless remote is a multicast group"),
    (lambda: Dgram(remote=Inet("127.0.0.1", 1)), "local",
     "is required, unless remote is a multicast group"),
    (lambda: Dgram(local=Unix("/l")), "remote", "is required with an inet or unix local"),
    (lambda: Dgram(local=Unix("/l"), remote=Inet("h", 1)), "remote",
     "must be of the same type as local"),
    (lambda: Dgram(local=Vsock(1, 1), remote=Vsock(1, 1)), "local",
     "must not be vsock, which has no datagrams"),
    (lambda: Hub(0, Hub()), "uplink", "must not be a hub itself"),
    (lambda: Hub(0, VhostUser("/s")), "uplink", "must take every card, not only virtio-net"),
    (lambda: L2tpv3(src="a", dst="b", txsession=1, udp=True, srcport=1), "srcport",
     "and dstport are needed for udp"),
    (lambda: L2tpv3(src="a", dst="b", txsession=1, srcport=1, dstport=2), "udp",
     "must be on for srcport and dstport"),
    (lambda: L2tpv3(src="a", dst="b", txsession=1, txcookie=1), "txcookie",
     "and rxcookie go together, or neither"),
    (lambda: Passt(forwards=[Forward(0, 80)]), "forwards", "must name a host port for passt"),
    (lambda: Passt(forwards=[Forward(1, 80, guest_address="10.0.2.1")]), "forwards",
     "must not name a guest address"),
    (lambda: Passt(dns=["x"]), "dns", "must be IP addresses"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "field", "reason"), REFUSED)
def test_what_qemu_refuses_is_refused_by_name(make, field, reason):
    with pytest.raises(SpecError) as caught:
        make()
    assert (caught.value.field, caught.value.reason) == (field, reason)
