"""Archives become trees; nothing that one says leads out of its tree."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st
from rootfs_tars import entry, tar

from pyvirt.errors import Cancelled, DiskFullError, RootFSError
from pyvirt.rootfs import IdMap, IdRange, Tarball
from pyvirt.running.rootfs import prepare

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")

MAP = IdMap([IdRange(0, 100_000, 1000)], [IdRange(0, 100_000, 1000)])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The directory of a container, beside something that must not change."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    (tmp_path / "container").mkdir()
    return tmp_path / "container"


def unpack(place: Path, data: bytes, **how: object) -> Path:
    """The root file system of an archive."""
    path = place.parent / "root.tar"
    path.write_bytes(data)
    run = {key: how.pop(key) for key in ("idmap", "progress", "cancel") if key in how}
    prepared = prepare(Tarball(path, **how), place, **run)  # type: ignore[arg-type]
    assert prepared.source == f"dir:{place}/rootfs"
    return place / "rootfs"


def refused(place: Path, data: bytes, **how: object) -> RootFSError:
    """The error of an archive that is refused, with nothing left and nothing outside."""
    before = sorted(str(path) for path in place.parent.rglob("*") if path.name != "root.tar")
    with pytest.raises(RootFSError) as caught:
        unpack(place, data, **how)
    after = sorted(str(path) for path in place.parent.rglob("*") if path.name != "root.tar")
    assert after == before
    assert (place.parent / "outside" / "kept").read_text() == "kept"
    return caught.value


def test_all_kinds_of_entries_are_made(place: Path) -> None:
    attribute = {"SCHILY.xattr.user.colour": "blue"}
    root = unpack(
        place,
        tar(
            entry("./", mode=0o751),
            "bin/",
            entry("bin/tool", data=b"#!", mode=0o4755, uid=3, gid=4, pax_headers=attribute),
            "bin/other => bin/tool",
            "bin/link -> ../bin/tool",
            "abs -> /bin",
            entry("pipe", type=tarfile.FIFOTYPE),
            ("deep/without/parents", b"x" * 3000),
            ("n" * 120 + "/" + "m" * 200, b"long"),
        ),
    )
    status = (root / "bin/tool").lstat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (3, 4, 0o4755)
    assert (status.st_mtime, status.st_nlink) == (1_000_000_000, 2)
    assert os.getxattr(root / "bin/tool", "user.colour") == b"blue"
    assert os.readlink(root / "bin/link") == "../bin/tool"
    assert os.readlink(root / "abs") == "/bin"
    assert stat.S_ISFIFO((root / "pipe").lstat().st_mode)
    assert (root / "deep/without/parents").read_bytes() == b"x" * 3000
    assert (root / ("n" * 120) / ("m" * 200)).read_bytes() == b"long"
    assert stat.S_IMODE(root.lstat().st_mode) == 0o751
    assert (root / "bin").lstat().st_mtime == 1_000_000_000


def test_paths_lead_through_links_as_they_do_inside(place: Path) -> None:
    root = unpack(place, tar("usr/bin/", "bin -> usr/bin", "run/", "var/", "var/run -> /run",
                             ("bin/a", b"a"), ("var/run/b", b"b")))  # fmt: skip
    assert (root / "usr/bin/a").read_bytes() == b"a"
    assert (root / "run/b").read_bytes() == b"b"


def test_later_entries_take_the_place_of_earlier_ones(place: Path) -> None:
    root = unpack(place, tar("d/", ("d/x", b"1"), "l -> d", ("d", b"file"), "l/", ("l/y", b"2")))
    assert (root / "d").read_bytes() == b"file"
    assert (root / "l/y").read_bytes() == b"2"


OUTSIDE = "../../outside"


@pytest.mark.parametrize(
    ("entries", "name", "reason"),
    [
        pytest.param([("../escaped", b"x")], "../escaped", "leads out of the root by '..'",
                     id="dot-dot"),
        pytest.param([("a/../../../x", b"x")], "a/../../../x", "leads out of the root by '..'",
                     id="dot-dot-inside"),
        pytest.param([entry("/etc/absolute", data=b"x")], "/etc/absolute",
                     "has an absolute path", id="absolute"),
        pytest.param([f"l -> {OUTSIDE}", ("l/kept", b"x")], "l/kept",
                     f"lies below the link l -> {OUTSIDE}, which leads out of the root",
                     id="relative-link-out"),
        pytest.param(["l -> /outside/there", ("l/kept", b"x")], "l/kept",
                     "lies below the link l -> /outside/there, which leads to nothing in the "
                     "root", id="absolute-link-out"),
        pytest.param(["a -> b", "b -> a", ("a/x", b"")], "a/x",
                     "lies below the link a -> b, which leads to itself", id="link-loop"),
        pytest.param([("f", b""), ("f/x", b"")], "f/x", "lies below f, a file", id="below-file"),
        pytest.param([f"h => {OUTSIDE}/kept"], "h", "leads out of the root by '..'",
                     id="hard-link-out"),
        pytest.param(["h => /etc/passwd"], "h", "has an absolute path", id="hard-link-absolute"),
        pytest.param([f"l -> {OUTSIDE}", "h => l/kept"], "h",
                     f"lies below the link l -> {OUTSIDE}, which leads out of the root",
                     id="hard-link-through-link"),
        pytest.param(["h => nothing"], "h", "is a hard link to nothing, which is not there",
                     id="hard-link-to-nothing"),
        pytest.param(["d/", "h => d"], "h", "is a hard link to the directory d",
                     id="hard-link-to-directory"),
        pytest.param([entry("sda", type=tarfile.BLKTYPE, devmajor=8)], "sda",
                     "is a device node; set devices if it shall be made", id="block-device"),
        pytest.param([entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "null",
                     "is a device node; set devices if it shall be made", id="char-device"),
        pytest.param([entry("odd", type=b"V")], "odd", "is of the unknown kind b'V'",
                     id="unknown"),
        pytest.param([("/".join(["d"] * 300), b"")], "/".join(["d"] * 300),
                     "lies deeper than 200 directories", id="too-deep"),
        pytest.param([("n" * 300, b"")], "n" * 300, "has a name longer than 255 bytes",
                     id="long-name"),
        pytest.param([entry("u", uid=5000)], "u",
                     "belongs to user 5000, which the id map does not hold", id="unmapped"),
    ],
)  # fmt: skip
def test_what_leads_out_or_is_no_part_of_a_root_is_refused(
    place: Path, entries: list[object], name: str, reason: str
) -> None:
    error = refused(place, tar(*entries), idmap=MAP)  # type: ignore[arg-type]
    assert (error.entry, error.reason, error.layer) == (name, reason, None)
    assert str(error) == f"{place.parent}/root.tar: the entry '{name}' {reason}"


def test_a_link_is_not_written_through(place: Path) -> None:
    kept = place.parent / "outside" / "kept"
    root = unpack(place, tar(f"x -> {kept}", ("x", b"new")))
    assert (root / "x").read_bytes() == b"new"
    assert kept.read_text() == "kept"


def test_device_nodes_are_made_where_that_is_asked_for(place: Path) -> None:
    node = entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    status = (unpack(place, tar(node), devices=True) / "null").lstat()
    assert stat.S_ISCHR(status.st_mode)
    assert (status.st_rdev, stat.S_IMODE(status.st_mode)) == (os.makedev(1, 3), 0o666)


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, bz2.compress, lzma.compress, zstd.compress,
     lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:]),
     lambda data: gzip.compress(data) + bytes(600)],
    ids=["gzip", "bzip2", "xz", "zstd", "gzip-of-two", "gzip-padded"],
)  # fmt: skip
class TestPacked:
    def test_is_unpacked(self, place: Path, pack: object) -> None:
        data = pack(tar(("a", os.urandom(700_000))))  # type: ignore[operator]
        assert (unpack(place, data) / "a").stat().st_size == 700_000

    def test_cut_short_is_refused(self, place: Path, pack: object) -> None:
        data = pack(tar(("a", os.urandom(5000)), ("b", b"")))  # type: ignore[operator]
        for size in (len(data) // 3, len(data.rstrip(b"\0")) - 9):
            assert "ends too early" in refused(place, data[:size]).reason


def test_what_follows_a_compressed_stream_is_refused(place: Path) -> None:
    error = refused(place, gzip.compress(tar("a/")) + b"something")
    assert error.reason == "has something behind its end"


def test_a_bomb_is_refused(place: Path) -> None:
    bomb = zstd.compress(tar(("a", bytes(30_000_000))))
    assert len(bomb) < 100_000
    error = refused(place, bomb, limit="8M")
    assert error.reason == "unpacks to more than 8388608 bytes; raise limit if that is right"
    # Entries cost inodes, and nothing in the archive.
    error = refused(place, gzip.compress(tar(*(f"{n}/" for n in range(50)))), entries=20)
    assert error.reason == "has more than 20 entries; raise entries if that is right"


def test_every_cut_is_refused(place: Path) -> None:
    data = tar("d/", entry("d/f", data=b"12345", pax_headers={"comment": "x"}), "l -> d")
    end = len(data.rstrip(b"\0"))
    for size in range(0, end, 97):
        assert "ends too early" in refused(place, data[:size]).reason


@settings(max_examples=40)
@given(st.data())
def test_damage_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = entry("d/f", data=b"1", pax_headers={"a": "b"})
    good = bytearray(tar("d/", file, "l -> d", "h => d/f"))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    place = tmp_path_factory.mktemp("damage")
    (place / "root.tar").write_bytes(good)
    (place / "container").mkdir()
    try:
        prepare(Tarball(place / "root.tar"), place / "container")
    except RootFSError:
        assert list((place / "container").iterdir()) == []
    assert sorted(path.name for path in place.iterdir()) == ["container", "root.tar"]


def test_cancelled_in_the_middle_leaves_nothing(place: Path) -> None:
    told: list[float | None] = []
    data = tar(*((str(n), bytes(300_000)) for n in range(20)))
    with pytest.raises(Cancelled) as caught:
        unpack(place, data, progress=lambda what, done: told.append(done),
               cancel=lambda: len(told) > 5)  # fmt: skip
    assert str(caught.value).startswith("making the root file system Tarball(")
    assert list(place.iterdir()) == []
    assert told == sorted(told)
    assert 0 < told[-1] < 1


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    target = tmp_path / "small"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", target], check=True)
    yield target
    subprocess.run(["umount", target], check=True)


def test_a_full_disk_is_told_and_emptied(tmp_path: Path, small: Path) -> None:
    (tmp_path / "big.tar").write_bytes(tar(("a", b"x" * 500_000), ("b", b"x" * 5_000_000)))
    with pytest.raises(DiskFullError) as caught:
        prepare(Tarball(tmp_path / "big.tar"), small)
    assert caught.value.place == str(small)
    assert str(caught.value).endswith(f" does not fit on the file system of {small}")
    assert list(small.iterdir()) == []


def test_ids_stay_those_of_the_container_where_linux_maps_them(place: Path) -> None:
    path = place.parent / "root.tar"
    path.write_bytes(tar(entry("f", uid=7, gid=8)))
    prepared = prepare(Tarball(path), place, idmap=MAP)
    status = (place / "rootfs/f").lstat()
    assert (prepared.options, status.st_uid, status.st_gid) == (("idmap=container",), 7, 8)


@pytest.mark.parametrize(("make", "reason"), [(None, "is not there"), ("mkdir", "is no file")])
def test_no_archive_is_an_error(place: Path, make: str | None, reason: str) -> None:
    path = place.parent / "missing.tar"
    if make:
        path.mkdir()
    with pytest.raises(RootFSError) as caught:
        prepare(Tarball(path), place)
    assert str(caught.value) == f"{path}: {reason}"
    assert list(place.iterdir()) == []
