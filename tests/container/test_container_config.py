"""Descriptions of containers: checked at birth, and rendered for hosts of every layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt import Container, SpecError
from pyvirt.container import (
    Autostart,
    Bind,
    Directory,
    HostDevice,
    HostNetwork,
    IdMap,
    IdRange,
    Ipvlan,
    Limits,
    Macvlan,
    Mount,
    Physical,
    Seccomp,
    Throttle,
    Tmpfs,
    Veth,
    Vlan,
)
from pyvirt.container.render import Host
from pyvirt.files.read import build
from pyvirt.files.write import table
from pyvirt.lxc import cgroup, line, subid
from pyvirt.lxc.cgroup import V1, V2, Layout

GOLDEN = Path(__file__).parents[1] / "golden"

FULL = Container(
    name="full",
    rootfs=Directory("/srv/full"),
    readonly=True,
    architecture="x86_64",
    hostname="full.example",
    command=["nginx", "-g", "daemon off;"],
    env={"LANG": "C.UTF-8", "TWO": "a = b"},
    cwd="/srv",
    user="www-data",
    idmap=IdMap([IdRange(0, 100000, 65536)], [IdRange(0, 200000, 65536)]),
    memory="512M",
    swap="256M",
    cpus=1.5,
    cpu_shares=512,
    cpu_set=[0, 2, 3],
    memory_nodes="0",
    pids=100,
    io_weight=200,
    io=[Throttle("8:0", read="1M", write_ops=50)],
    devices=[HostDevice("/dev/fuse"), HostDevice("/dev/kvm", "/dev/vm", access="r")],
    mounts=[
        Bind("/srv/my data", "/data", readonly=True),
        Bind("/etc/hosts", "/etc/hosts", file=True),
        Tmpfs("/tmp", size="16M"),
        Mount("proc", "/proc2", "proc"),
    ],
    nics=[
        Veth(
            "br0",
            host_name="vfull",
            mac="02:00:00:00:00:01",
            addresses=["10.0.3.2/24", "fd00::2/64"],
            gateways=["10.0.3.1", "fd00::1"],
            mtu=1400,
            vlan=7,
            tagged_vlans=[8, 9],
        ),
        Macvlan("eth1", mode="bridge", name="wan"),
        Ipvlan("eth1"),
        Vlan("eth1", 12),
        Physical("eth2", up=False),
    ],
    drop_capabilities=["sys_module", "mac_admin"],
    seccomp=Seccomp(),
    apparmor="lxc-container-default",
    nesting=True,
    rlimits={"nofile": 1024, "nproc": "100:200"},
    sysctls={"net.ipv4.ip_forward": 1},
    autostart=Autostart(order=5, delay=3, groups=["onboot"]),
    hooks={"pre-start": "/usr/local/bin/hook"},
    stop_signal="SIGQUIT",
    raw={"lxc.tty.max": 4},
)

MIXED = Layout({**V1.hierarchies}, "/sys/fs/cgroup/unified", frozenset())


@pytest.mark.parametrize(
    ("name", "layout"), [("v1", V1), ("v2", V2)], ids=["cgroup-v1", "cgroup-v2"]
)
def test_everything_is_rendered(name: str, layout: Layout) -> None:
    host = Host(layout=layout, devices=("c 10:229", "c 10:232"), init="/srv/contain")
    assert FULL.explain(host) + "\n" == (GOLDEN / f"container-{name}.txt").read_text()


def test_a_mixed_host_is_one_of_v1_where_the_controllers_are() -> None:
    assert FULL.config(Host(layout=MIXED)) == FULL.config(Host(layout=V1))


def test_the_default_says_what_nobody_knows_yet() -> None:
    assert "lxc.rootfs.path = <rootfs>" in Container().config()
    assert "lxc.net.0.type = empty" in Container().config()


def test_each_line_comes_from_a_field_that_was_given_or_is_ours() -> None:
    known = {field.name for field in attrs.fields(Container)} | {""}
    assert {each.source.partition("[")[0] for each in FULL.lines()} <= known


def test_a_description_survives_a_file() -> None:
    assert build(Container, table(FULL), "") == FULL


@pytest.mark.parametrize(
    ("given", "field"),
    [
        pytest.param({"name": "a/b"}, "name", id="name"),
        pytest.param({"name": "-a"}, "name", id="name-begins"),
        pytest.param({"hostname": "a b"}, "hostname", id="hostname"),
        pytest.param({"rootfs": "/srv"}, "rootfs", id="rootfs"),
        pytest.param({"command": "true"}, "command", id="command-of-text"),
        pytest.param({"command": []}, "command", id="command-of-nothing"),
        pytest.param({"init": "init"}, "init", id="init"),
        pytest.param({"env": {"A": "1\nlxc.hook.start = /x"}}, "env", id="env-of-two-lines"),
        pytest.param({"env": {"A=": "1"}}, "env", id="env-name"),
        pytest.param({"cwd": "srv"}, "cwd", id="cwd"),
        pytest.param({"user": "a b"}, "user", id="user"),
        pytest.param({"idmap": "none"}, "idmap", id="idmap"),
        pytest.param({"memory": 0}, "memory", id="memory"),
        pytest.param({"swap": "1M"}, "swap", id="swap-without-memory"),
        pytest.param({"cpus": 0}, "cpus", id="cpus"),
        pytest.param({"cpus": 1, "cpu_quota": 5000}, "cpu_quota", id="cpus-twice"),
        pytest.param({"cpu_set": "0-"}, "cpu_set", id="cpu-set"),
        pytest.param({"pids": 0}, "pids", id="pids"),
        pytest.param({"io_weight": 5}, "io_weight", id="io-weight"),
        pytest.param({"architecture": "abacus"}, "architecture", id="architecture"),
        pytest.param({"stop_signal": "SIGFOO"}, "stop_signal", id="signal"),
        pytest.param({"stop_signal": "65"}, "stop_signal", id="signal-number"),
        pytest.param({"rlimits": {"nofle": 1}}, "rlimits", id="rlimit"),
        pytest.param({"rlimits": {"nofile": None}}, "rlimits", id="rlimit-of-nothing"),
        pytest.param({"sysctls": {"a b": 1}}, "sysctls", id="sysctl"),
        pytest.param({"sysctls": {"vm.swappiness": None}}, "sysctls", id="sysctl-of-nothing"),
        pytest.param({"devices": ["/dev/kvm"]}, "devices", id="devices"),
        pytest.param({"mounts": ["/a"]}, "mounts", id="mounts"),
        pytest.param({"nics": [HostNetwork(), Veth()]}, "nics", id="host-network-and-more"),
        pytest.param({"keep_capabilities": ["CAP_CHOWN"]}, "keep_capabilities", id="capability"),
        pytest.param(
            {"keep_capabilities": [], "drop_capabilities": ["chown"]},
            "drop_capabilities",
            id="capabilities-twice",
        ),
        pytest.param({"hooks": {"boot": "/x"}}, "hooks", id="hooks"),
        pytest.param({"raw": {"tty.max": 1}}, "raw", id="raw"),
        pytest.param({"raw": {"lxc.tty.max": "1\n2"}}, "raw", id="raw-of-two-lines"),
        pytest.param({"stop_signal": "TERM"}, "stop_signal", id="stop-signal"),
    ],
)
def test_a_mistake_names_its_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(SpecError) as caught:
        Container(**given)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("make", "field"),
    [
        pytest.param(lambda: HostDevice("kvm"), "path", id="device-path"),
        pytest.param(lambda: HostDevice("/dev/kvm", access="wr"), "access", id="device-access"),
        pytest.param(lambda: Bind("/a", "../b"), "target", id="mount-leads-out"),
        pytest.param(lambda: Bind("/a\n/b", "/b"), "source", id="mount-of-two-lines"),
        pytest.param(lambda: Tmpfs("/a", size=0), "size", id="tmpfs-size"),
        pytest.param(lambda: Veth("x" * 16), "bridge", id="bridge"),
        pytest.param(lambda: Veth(addresses=["10.0.0.1"]), "addresses", id="address-length"),
        pytest.param(lambda: Veth(addresses=["ten/8"]), "addresses", id="address"),
        pytest.param(lambda: Veth(gateways=["auto"]), "gateways", id="auto-without-bridge"),
        pytest.param(lambda: Veth(gateways=["10.0.0.1", "10.0.0.2"]), "gateways", id="gateways"),
        pytest.param(lambda: Veth(vlan=3), "vlan", id="vlan-without-bridge"),
        pytest.param(lambda: Veth(mac="01:00:00:00:00:00"), "mac", id="mac-of-a-group"),
        pytest.param(lambda: Macvlan("eth0", mode="l2"), "mode", id="macvlan-mode"),
        pytest.param(lambda: Vlan("eth0", 4095), "id", id="vlan-id"),
        pytest.param(lambda: Throttle("sda"), "device", id="throttle"),
        pytest.param(lambda: Seccomp(deny=["a b"]), "deny", id="seccomp"),
    ],
)
def test_a_mistake_in_a_part_names_its_field(make: Any, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert caught.value.field == field


@given(st.text())
def test_no_text_makes_a_line_of_its_own(text: str) -> None:
    given = {"env": {"A": text}, "hooks": {"start": text}, "raw": {"lxc.tty.max": text}}
    if any(c in text for c in "\0\r\n"):
        with pytest.raises(SpecError):
            Container(**given)
        return
    container = Container(**given)
    usual = len(Container(env={"A": ""}, hooks={"start": ""}, raw={"lxc.tty.max": ""}).lines())
    assert len(container.config().split("\n")) == usual + 1


def test_seccomp_profiles_are_texts_of_liblxc() -> None:
    assert Seccomp(deny=["mount"], errno=38).profile() == (
        "2\ndenylist allow\nreject_force_umount\n[all]\nmount errno 38\n"
    )
    assert Seccomp(allow=["read"]).profile() == "2\nallowlist errno 1\n[all]\nread\n"
    assert Seccomp(text="1\nallowlist\n").profile() == "1\nallowlist\n"


MOUNTINFO = """\
25 1 0:20 / /sys/fs/cgroup rw shared:1 - tmpfs tmpfs rw,mode=755
26 25 0:21 / /sys/fs/cgroup/cpu,cpuacct rw shared:2 - cgroup cgroup rw,cpu,cpuacct
27 25 0:22 / /sys/fs/cgroup/my\\040memory rw - cgroup cgroup rw,memory
28 25 0:23 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
29 25 0:24 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
"""


def test_the_layout_is_read_from_the_mounts() -> None:
    found = cgroup.layout(MOUNTINFO, "pids io\n")
    assert [found.version(name) for name in ("cpu", "memory", "pids", "blkio", "cpuset")] == [
        1, 1, 2, 2, None,
    ]  # fmt: skip
    assert found.mount("memory") == "/sys/fs/cgroup/my memory"
    assert found.mount("pids") == "/sys/fs/cgroup/unified"
    assert found.mount("cpuset") is None
    assert len(found.mounts()) == 4


@pytest.mark.parametrize(
    ("name", "wanted", "found", "taken"),
    [
        ("memory.limit_in_bytes", "67108865", "67108864\n", True),
        ("memory.max", "67108864", "max\n", False),
        ("memory.max", "67108864", "", False),
        ("cpuset.cpus", "0,1,2", "0-2\n", True),
        ("cpuset.cpus", "0", "0-2\n", False),
        ("pids.max", "5", "5\n", True),
        ("pids.max", "5", "max\n", False),
        ("cpu.max", "50000 100000", "50000 100000\n", True),
        ("io.weight", "default 200", "default 200\n", True),
        ("io.weight", "default 200", "", False),
        ("io.max", "8:0 rbps=1", "8:0 rbps=1 wbps=max riops=max wiops=max\n", True),
        ("io.max", "8:0 rbps=1", "", False),
        ("blkio.throttle.read_bps_device", "8:0 1", "8:0 1\n", True),
        ("blkio.throttle.read_bps_device", "8:0 1", "8:16 1\n", False),
    ],
)
def test_whether_a_limit_bit(name: str, wanted: str, found: str, taken: bool) -> None:
    assert cgroup.took(name, wanted, found) is taken


def test_limits_alone_are_a_value() -> None:
    assert repr(Limits(memory="64M", pids=5)) == "Limits(memory='64M', pids=5)"


def test_a_line_is_one_line() -> None:
    with pytest.raises(SpecError) as caught:
        line.Line("lxc.tty.max", "1\n2", source="raw")
    assert caught.value.field == "raw"


def test_ranges_of_ids_are_found_by_name_and_number() -> None:
    text = "root:100000:65536\n0:5:10\nroot:x:1\nroots:1:2\n\n"
    found = subid.ranges(text, "root", 0)
    assert [(one.first, one.count) for one in found] == [(100000, 65536), (5, 10)]
    assert subid.largest(found) == found[0]
    assert subid.largest([]) is None
