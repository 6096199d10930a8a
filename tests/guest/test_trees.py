"""Trees on their way, and what a hostile guest could put into one."""

from __future__ import annotations

import io
import os
import socket
import tarfile

import pytest
from carrier_suite import build_tree, snapshot
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import ProtocolError, SpecError
from pyvirt.guest import tar
from pyvirt.running.agents import trees


def archive(*members, end=tar.END):
    """An archive of (name, type, content or link) as a guest might send it."""
    parts = []
    for name, type_, content in members:
        info = tarfile.TarInfo(name)
        info.type = type_
        if type_ == tarfile.REGTYPE:
            info.size = len(content)
        else:
            info.linkname = content.decode()
        body = content + tar.padding(len(content)) if type_ == tarfile.REGTYPE else b""
        parts += [tar.header(info), body]
    return b"".join(parts) + end


def unpack(data, target):
    trees.unpack(io.BytesIO(data).read, str(target))


def test_there_and_back(tmp_path):
    build_tree(tmp_path / "a")
    unpack(b"".join(trees.pack(str(tmp_path / "a"))), tmp_path / "b")
    assert snapshot(tmp_path / "b") == snapshot(tmp_path / "a")


def test_other_tools_read_it_and_are_read(tmp_path):
    build_tree(tmp_path / "a")
    known = {"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}  # Python 3.11.4 on
    with tarfile.open(fileobj=io.BytesIO(b"".join(trees.pack(str(tmp_path / "a"))))) as theirs:
        theirs.extractall(tmp_path / "b", **known)
    assert snapshot(tmp_path / "b") == snapshot(tmp_path / "a")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as theirs:
        theirs.add(tmp_path / "a", ".")
    unpack(buffer.getvalue(), tmp_path / "c")
    assert snapshot(tmp_path / "c") == snapshot(tmp_path / "a")


def test_hard_links_stay_inside(tmp_path):
    unpack(archive(("a", tarfile.REGTYPE, b"x"), ("b", tarfile.LNKTYPE, b"a")), tmp_path / "out")
    assert (tmp_path / "out" / "b").read_bytes() == b"x"
    with pytest.raises(ProtocolError):
        unpack(archive(("b", tarfile.LNKTYPE, b"../secret")), tmp_path / "out")


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([("../evil", tarfile.REGTYPE, b"x")], id="up"),
        pytest.param([("a/../../evil", tarfile.REGTYPE, b"x")], id="down-and-up"),
        pytest.param([("/evil", tarfile.REGTYPE, b"x")], id="absolute"),
        pytest.param([("fifo", tarfile.FIFOTYPE, b"")], id="fifo"),
        pytest.param([("disk", tarfile.BLKTYPE, b"")], id="device"),
    ],
)
def test_entries_that_lead_out_are_refused(tmp_path, members):
    with pytest.raises(ProtocolError) as caught:
        unpack(archive(*members), tmp_path / "out")
    assert caught.value.peer == "the guest's archive"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("target", ["..", "/", "."])
def test_links_are_made_and_never_followed(tmp_path, target):
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        unpack(
            archive(("door", tarfile.SYMTYPE, target.encode()), ("door/x", tarfile.REGTYPE, b"x")),
            tmp_path / "out",
        )
    assert os.readlink(tmp_path / "out" / "door") == target
    assert not (tmp_path / "x").exists()


def test_a_link_is_replaced_not_written_through(tmp_path):
    (tmp_path / "victim").write_bytes(b"old")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").symlink_to("../victim")
    unpack(archive(("file", tarfile.REGTYPE, b"new")), tmp_path / "out")
    assert (tmp_path / "victim").read_bytes() == b"old"
    assert (tmp_path / "out" / "file").read_bytes() == b"new"


def test_set_user_id_is_not_taken_over(tmp_path):
    info = tarfile.TarInfo("tool")
    info.mode = 0o6755
    unpack(tar.header(info) + tar.END, tmp_path)
    assert (tmp_path / "tool").stat().st_mode & 0o7777 == 0o755


def test_a_name_without_end_takes_no_memory(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    with pytest.raises(ProtocolError, match="a name longer than 4096 bytes"):
        unpack(tar.header(info), tmp_path)


@given(data=st.data())
def test_damage_ends_in_its_own_error(data, tmp_path_factory):
    whole = bytearray(archive(("dir", tarfile.DIRTYPE, b""), ("a", tarfile.REGTYPE, b"x" * 600)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    target = tmp_path_factory.mktemp("damaged")
    try:
        unpack(cut, target / "out")
    except (ProtocolError, OSError) as error:
        assert isinstance(error, ProtocolError) or error.filename, error  # noqa: PT017
    assert [path.name for path in target.iterdir()] == ["out"]


@pytest.mark.parametrize("size", range(0, 2048, 128))
def test_an_archive_that_is_cut_is_not_taken_for_whole(tmp_path, size):
    whole = archive(("a", tarfile.REGTYPE, b"x" * 600))
    assert len(whole) > 2048
    with pytest.raises(ProtocolError, match="ends too early"):
        unpack(whole[:size], tmp_path / "out")


def test_what_no_copy_can_hold_is_refused_not_skipped(tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "sock"))
        with pytest.raises(SpecError) as caught:
            b"".join(trees.pack(str(tmp_path)))
    assert caught.value.value == str(tmp_path / "sock")


def test_a_source_that_is_no_directory():
    with pytest.raises(OSError, match="No such file"):
        b"".join(trees.pack("/no/such/directory"))
