"""Nodes of the block layer: their JSON, and that QEMU's schema takes it."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from disk_images import raw
from hypothesis import example, given
from hypothesis import strategies as st
from support.parts import golden, needs, running
from support.qemu import Refused, needs_qemu, start

from pyvirt.disk import (
    CDROM,
    Disk,
    File,
    Gluster,
    HostCDROM,
    HostDevice,
    Iscsi,
    Nbd,
    Nfs,
    Node,
    Null,
    Qcow2,
    Raw,
    Rbd,
    Ssh,
    Url,
)
from pyvirt.disk.backend import walk
from pyvirt.disk.remote import host_port
from pyvirt.errors import SpecError
from pyvirt.qemu.part import At

NODES = [
    (
        HostDevice("/dev/sdb", aio="threads", aio_max_batch=8, pr_manager="pr0", locking="off"),
        {
            "driver": "host_device",
            "filename": "/dev/sdb",
            "aio": "threads",
            "aio-max-batch": 8,
            "pr-manager": "pr0",
            "locking": "off",
        },
    ),
    (HostCDROM("/dev/sr0"), {"driver": "host_cdrom", "filename": "/dev/sr0"}),
    (
        Null("1M", latency_ns=5, read_zeroes=False),
        {"driver": "null-co", "size": 1 << 20, "latency-ns": 5, "read-zeroes": False},
    ),
    (
        Nbd("127.0.0.1", 1, export="x", tls_hostname="h", reconnect_delay=3, open_timeout=0),
        {
            "driver": "nbd",
            "server": {"type": "inet", "host": "127.0.0.1", "port": "1"},
            "export": "x",
            "tls-hostname": "h",
            "reconnect-delay": 3,
            "open-timeout": 0,
        },
    ),
    (
        Nbd(path="/nowhere.sock"),
        {"driver": "nbd", "server": {"type": "unix", "path": "/nowhere.sock"}},
    ),
    (
        Url(
            "https://127.0.0.1:1/x",
            readahead="64K",
            timeout=3,
            username="me",
            password="p",
            proxy_username="you",
            proxy_password="q",
            cookie="a=b",
            sslverify=False,
        ),
        {
            "driver": "https",
            "url": "https://127.0.0.1:1/x",
            "readahead": 65536,
            "timeout": 3,
            "username": "me",
            "password-secret": "n-file-password-secret",
            "proxy-username": "you",
            "proxy-password-secret": "n-file-proxy-password-secret",
            "cookie-secret": "n-file-cookie-secret",
            "sslverify": False,
        },
    ),
    (
        Ssh("127.0.0.1", "/x", port=1, user="me", host_key_check="sha256:00ff"),
        {
            "driver": "ssh",
            "server": {"host": "127.0.0.1", "port": "1"},
            "path": "/x",
            "user": "me",
            "host-key-check": {"mode": "hash", "type": "sha256", "hash": "00ff"},
        },
    ),
    (
        Ssh("127.0.0.1", "/x", port=1, host_key_check="none"),
        {
            "driver": "ssh",
            "server": {"host": "127.0.0.1", "port": "1"},
            "path": "/x",
            "host-key-check": {"mode": "none"},
        },
    ),
    (
        Nfs("127.0.0.1", "/x/y", user=1, group=2, tcp_syn_count=1, readahead_size="4K",
            page_cache_size=4096),
        {
            "driver": "nfs",
            "server": {"type": "inet", "host": "127.0.0.1"},
            "path": "/x/y",
            "user": 1,
            "group": 2,
            "tcp-syn-count": 1,
            "readahead-size": 4096,
            "page-cache-size": 4096,
        },
    ),
    (
        Iscsi("127.0.0.1:1", "iqn.2026-01.org.example:t", 3, user="me", password="p",
              initiator_name="iqn.2026-01.org.example:i", header_digest="none", timeout=1),
        {
            "driver": "iscsi",
            "portal": "127.0.0.1:1",
            "target": "iqn.2026-01.org.example:t",
            "lun": 3,
            "transport": "tcp",
            "user": "me",
            "password-secret": "n-file-password-secret",
            "initiator-name": "iqn.2026-01.org.example:i",
            "header-digest": "none",
            "timeout": 1,
        },
    ),
    (
        Rbd("rbd", "image", namespace="n", snapshot="s", conf="/no/such.conf", user="me",
            key="aw==", servers=["127.0.0.1:3300", "[::1]"]),
        {
            "driver": "rbd",
            "pool": "rbd",
            "image": "image",
            "namespace": "n",
            "snapshot": "s",
            "conf": "/no/such.conf",
            "user": "me",
            "key-secret": "n-file-secret",
            "server": [
                {"host": "127.0.0.1", "port": "3300"},
                {"host": "::1", "port": "6789"},
            ],
        },
    ),
    (
        Gluster("volume", "path", ["127.0.0.1:1", "/nowhere.sock"], debug=0, logfile="/dev/null"),
        {
            "driver": "gluster",
            "server": [
                {"type": "inet", "host": "127.0.0.1", "port": "1"},
                {"type": "unix", "path": "/nowhere.sock"},
            ],
            "volume": "volume",
            "path": "path",
            "debug": 0,
            "logfile": "/dev/null",
        },
    ),
]  # fmt: skip


def named(node, id="n"):
    return Disk(node, readonly=isinstance(node, Url | HostCDROM), id=id)


def laid(node):
    """The JSON of a protocol node inside a disk called n."""
    *_, (_, blockdev), _ = golden(named(node), At("n"))
    return blockdev["file"]


@pytest.mark.parametrize(
    ("node", "json"), [pytest.param(*case, id=type(case[0]).__name__) for case in NODES]
)
def test_a_node_is_its_fields_in_qemus_words(node, json):
    assert laid(node) == {"node-name": "n-file", **json}


@pytest.fixture(scope="module")
def qemu():
    with start(machine="none", timeout=60) as running:
        yield running


# Iscsi, Rbd and Gluster wait for their servers, each with QEMU's main loop stopped.
QUICK = [case for case in NODES if not isinstance(case[0], Rbd | Gluster | Iscsi | Nfs)]


@needs_qemu
@pytest.mark.parametrize(
    ("node", "json"), [pytest.param(*case, id=type(case[0]).__name__) for case in QUICK]
)
def test_qemu_takes_every_property_of_a_node(qemu, node, json):
    """Nothing is there to connect to; but a wrong property would be refused before that."""
    words = refusal(qemu, {"node-name": "n", **json})
    for complaint in ("nvalid parameter", "unexpected", "missing", "Parameter"):
        assert complaint not in words


def refusal(qemu, node):
    """QEMU's words when it does not open `node`, or ""."""
    try:
        qemu.cmd("blockdev-add", node)
    except Refused as error:
        return error.desc
    qemu.cmd("blockdev-del", {"node-name": node["node-name"]})
    return ""


@needs_qemu
@pytest.mark.parametrize(
    ("node", "json"), [pytest.param(*case, id=type(case[0]).__name__) for case in NODES]
)
def test_the_schema_has_every_property_of_a_node(schema, node, json):
    known = schema[json["driver"]]
    assert set(json) - {"driver"} <= known


@pytest.fixture(scope="module")
def schema(qemu):
    """The properties of each block driver, from ``query-qmp-schema``."""
    types = {item["name"]: item for item in qemu.cmd("query-qmp-schema")}
    options = types[types["blockdev-add"]["arg-type"]]
    return {
        variant["case"]: {member["name"] for member in types[variant["type"]]["members"]}
        for variant in options["variants"]
    }


def test_secrets_stay_off_the_command_line():
    disk = named(NODES[5][0])
    assert {need.name: need.content for need in needs(disk)} == {
        "disk0-file-password-secret": b"p",
        "disk0-file-proxy-password-secret": b"q",
        "disk0-file-cookie-secret": b"a=b",
    }


def test_any_node_in_qemus_words_may_hold_others():
    quorum = Node(
        "quorum",
        {"vote-threshold": 2, "children": [Qcow2("a"), Raw("b"), Node("null-co", {"size": 512})]},
    )
    (_, blockdev), _ = golden(Disk(quorum))
    names = [child["node-name"] for child in blockdev["children"]]
    assert names == ["disk0-children0", "disk0-children1", "disk0-children2"]
    assert blockdev["children"][0]["file"]["node-name"] == "disk0-children0-file"
    assert blockdev["driver"] == "quorum"


@given(depth=st.integers(1, 12))
def test_node_names_are_unique_in_a_chain_of_any_depth(depth):
    node = Qcow2("base")
    for number in range(depth):
        node = Qcow2(f"overlay{number}", backing=node)
    (_, blockdev), _ = golden(Disk(node))
    names = list(_names(blockdev))
    assert len(names) == len(set(names)) == 2 * (depth + 1)
    assert max(map(len, names)) <= 31
    assert len(list(walk(node))) == 2 * (depth + 1)


def _names(node):
    yield node["node-name"]
    for value in node.values():
        if isinstance(value, dict):
            yield from _names(value)


@pytest.mark.parametrize(
    ("address", "parts"),
    [("h", ("h", 9)), ("h:1", ("h", 1)), ("[::1]:1", ("::1", 1)), ("[::1]", ("::1", 9))],
)
def test_addresses(address, parts):
    assert host_port("servers", address, 9) == parts


@given(st.text())
@example("[")
def test_an_address_is_read_or_refused(address):
    try:
        host, port = host_port("servers", address, 9)
    except SpecError:
        return
    assert host
    assert 1 <= port <= 65535


class Ranges(BaseHTTPRequestHandler):
    """One file of 1 MiB, in the ranges that curl asks for."""

    content = bytes(range(256)) * 4096

    def do_HEAD(self):
        self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self):
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        part = self.content[int(first) : int(last) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@needs_qemu
def test_an_iso_on_a_web_server(server, qemu, schema):
    if "http" not in schema:
        pytest.skip("this QEMU has no http driver (qemu-block-extra)")
    url = Url(f"{server}/a,b%20c.iso", password="x", username="y")
    with running(CDROM(url, id="web"), Disk(url, bus="scsi", id="top", snapshot=True)) as lab:
        sizes = {
            b["qdev"]: b["inserted"]["image"]["virtual-size"] for b in lab.qemu.cmd("query-block")
        }
        assert sizes == {"web": 1 << 20, "top": 1 << 20}


@needs_qemu
def test_the_same_file_read_only_twice(tmp_path):
    image = raw(tmp_path / "x")
    disks = [Disk(File(image), "raw", readonly=True, id=f"d{n}") for n in range(2)]
    with running(*disks) as lab:
        assert len(lab.qemu.cmd("query-block")) == 2
