"""Container images on disk become root file systems, and wrong ones nothing."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from rootfs_tars import Layout, digest, docker_archive, entry, tar

from pyvirt.errors import Cancelled, RootFSError, SpecError
from pyvirt.rootfs import DockerArchive, OciImage, Overlay, Process
from pyvirt.running.rootfs import Prepared, prepare

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")

LOWER = tar("etc/", ("etc/a", b"lower"), ("etc/b", b"lower"), "old/", ("old/x", b""), "old/in/",
            ("old/in/y", b""), "lib -> usr/lib", "usr/lib/", ("usr/lib/one", b"1"))  # fmt: skip
UPPER = tar("etc/.wh.a", ("old/new", b"content"), "old/.wh..wh..opq", ("old/in/z", b"3"),
            ("lib/two", b"2"), ("etc/c", b""), "etc/.wh.c")  # fmt: skip
MERGED = {
    "etc", "etc/b", "etc/c", "lib", "old", "old/in", "old/in/z", "old/new", "usr", "usr/lib",
    "usr/lib/one", "usr/lib/two",
}  # fmt: skip
CONFIG = {
    "Entrypoint": ["/sbin/init", "-x"], "Cmd": ["arg"], "Env": ["PATH=/bin", "A=b=c"],
    "WorkingDir": "/etc", "User": "7:8", "StopSignal": "SIGQUIT",
}  # fmt: skip
PROCESS = Process(("/sbin/init", "-x", "arg"), {"PATH": "/bin", "A": "b=c"}, "/etc", "7:8", "",
                  "SIGQUIT")  # fmt: skip


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "container"
    path.mkdir()
    return path


def names(place: Path) -> set[str]:
    root = place / "rootfs"
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def refused(rootfs: Any, place: Path, **how: Any) -> RootFSError:
    with pytest.raises(RootFSError) as caught:
        prepare(rootfs, place, **how)
    assert list(place.iterdir()) == []
    assert caught.value.source == str(rootfs.path)
    return caught.value


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
def test_layers_are_put_over_each_other(layout: Layout, place: Path, pack: Any) -> None:
    layout.tag("latest", layout.image([LOWER, UPPER], CONFIG, pack))
    prepared = prepare(OciImage(layout.path), place)
    assert prepared == Prepared(f"dir:{place}/rootfs", (), PROCESS)
    assert names(place) == MERGED


def test_a_docker_archive_is_the_same(tmp_path: Path, place: Path) -> None:
    for number, pack in enumerate((bytes, gzip.compress)):
        path = tmp_path / f"image{number}.tar"
        path.write_bytes(pack(docker_archive([LOWER, UPPER], CONFIG)))
        inner = place / str(number)
        inner.mkdir()
        prepared = prepare(DockerArchive(path, "made:latest"), inner)
        assert (prepared.process, names(inner)) == (PROCESS, MERGED)


def test_docker_names_equal_layers_by_links(tmp_path: Path, place: Path) -> None:
    layer = tar(("f", b"1"))
    config = json.dumps({"rootfs": {"diff_ids": [digest(layer)]}}).encode()
    manifest = json.dumps([{"Config": "c", "RepoTags": None, "Layers": ["b/layer.tar"]}]).encode()
    path = tmp_path / "image.tar"
    path.write_bytes(tar(("a/layer.tar", layer), "b/layer.tar -> ../a/layer.tar", ("c", config),
                         ("manifest.json", manifest)))  # fmt: skip
    prepare(DockerArchive(path), place)
    assert names(place) == {"f"}


def test_the_platform_is_chosen(layout: Layout, tmp_path: Path) -> None:
    wanted = {"amd64": "", "arm64": "v8", "arm/v6": "v6", "arm/v7": "v7"}
    manifests = []
    for name, variant in wanted.items():
        made = layout.image([tar((name.replace("/", "-"), b""))])
        platform = {"os": "linux", "architecture": name.partition("/")[0], "variant": variant}
        manifests.append({**made, "platform": platform})
    index = {"schemaVersion": 2, "manifests": manifests}
    layout.tag("many", layout.document(index, "index"))
    for name in wanted:
        place = tmp_path / name.replace("/", "-")
        place.mkdir()
        prepare(OciImage(layout.path, "many", architecture=name), place)
        assert names(place) == {place.name}
    place = tmp_path / "none"
    place.mkdir()
    error = refused(OciImage(layout.path, architecture="s390x"), place)
    assert error.reason == ("has nothing for linux/s390x; there is linux/amd64, linux/arm/v6, "
                            "linux/arm/v7, linux/arm64/v8")  # fmt: skip


def test_the_tag_is_chosen(layout: Layout, place: Path) -> None:
    layout.tag("one", layout.image([tar("one/")]))
    layout.tag("two", layout.image([tar("two/")]))
    assert refused(OciImage(layout.path), place).reason == (
        "has 2 images; name one of 'one', 'two' in tag"
    )
    assert refused(OciImage(layout.path, "three"), place).reason == (
        "has no image 'three'; there is 'one', 'two'"
    )
    prepare(OciImage(layout.path, "two"), place)
    assert names(place) == {"two"}


def test_a_layer_that_is_not_what_its_digest_says_is_refused(layout: Layout, place: Path) -> None:
    layout.tag("x", layout.image([LOWER, UPPER], pack=bytes))
    file = layout.file(digest(UPPER))
    data = bytearray(UPPER)
    data[data.index(b"content")] ^= 1
    file.write_bytes(data)
    error = refused(OciImage(layout.path), place)
    assert error.layer == digest(UPPER)
    assert error.reason == f"is not what its digest says: it has {digest(bytes(data))}"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd.compress])
def test_a_truncated_layer_is_refused(layout: Layout, place: Path, pack: Any) -> None:
    data = pack(UPPER)
    layout.tag("x", layout.image([LOWER, UPPER], pack=pack))
    for size in (0, 1, len(data) // 2, len(data) - 1):
        layout.file(digest(data)).write_bytes(data[:size])
        error = refused(OciImage(layout.path), place)
        assert error.layer == digest(data)
        assert "early" in error.reason or error.reason == (
            f"is cut short: it has {size} of {len(data)} bytes"
        )
    layout.file(digest(data)).unlink()
    assert refused(OciImage(layout.path), place).reason == (
        f"has no blobs/{digest(data).replace(':', '/')}"
    )


def test_a_hostile_layer_is_named(layout: Layout, place: Path) -> None:
    bad = tar("l -> ../../..", ("l/x", b""))
    layout.tag("x", layout.image([LOWER, bad], pack=bytes))
    error = refused(OciImage(layout.path), place)
    assert (error.layer, error.entry) == (digest(bad), "l/x")
    assert str(error) == (
        f"{layout.path}, layer {digest(bad)}: the entry 'l/x' lies below the link "
        "l -> ../../.., which leads out of the root"
    )
    layout.tag("y", layout.image([tar("d/.wh..")]))
    assert refused(OciImage(layout.path, "y"), place).reason == "is a whiteout of no name"


def test_a_whiteout_does_not_reach_through_a_link(layout: Layout, place: Path) -> None:
    (place.parent / "outside").mkdir()
    (place.parent / "outside" / "kept").touch()
    layout.tag("x", layout.image([tar("d -> ../../../outside"), tar("d/.wh.kept")]))
    assert "leads out of the root" in refused(OciImage(layout.path), place).reason
    layout.tag("y", layout.image([tar("d -> ../../outside"), tar(".wh.d")]))
    prepare(OciImage(layout.path, "y"), place)
    assert names(place) == set()
    assert (place.parent / "outside" / "kept").exists()


BROKEN = [
    pytest.param("index.json", b"{", "has a index.json that is not JSON", id="no-json"),
    pytest.param("index.json", b"[]", "has no object in its index.json", id="no-object"),
    pytest.param("index.json", b"{}", "has no list of manifests", id="no-manifests"),
    pytest.param("index.json", b'{"manifests": [{"digest": "sha256:../../../etc/passwd"}]}',
                 "has a descriptor without a digest that is known, but "
                 "'sha256:../../../etc/passwd'", id="digest-leads-out"),
    pytest.param("index.json", b'{"manifests": [{"digest": "sha256:%s", "size": -1}]}'
                 % (b"0" * 64), "has a descriptor without a size, but -1", id="no-size"),
    pytest.param("index.json", b"[" * 100_000, "has a index.json that is not JSON", id="nested"),
    pytest.param("oci-layout", None, "has no oci-layout", id="no-layout"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "reason"), BROKEN)
def test_broken_documents_are_refused(
    layout: Layout, place: Path, name: str, content: bytes | None, reason: str
) -> None:
    layout.tag("x", layout.image([LOWER]))
    if content is None:
        (layout.path / name).unlink()
    else:
        (layout.path / name).write_bytes(content)
    assert refused(OciImage(layout.path), place).reason.startswith(reason)


def test_a_blob_that_is_a_link_is_not_followed(layout: Layout, place: Path) -> None:
    layout.tag("x", layout.image([LOWER], pack=bytes))
    file = layout.file(digest(LOWER))
    file.rename(place.parent / "elsewhere")
    file.symlink_to(place.parent / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        prepare(OciImage(layout.path), place)
    assert list(place.iterdir()) == []


def test_cancel_between_layers_leaves_nothing(layout: Layout, place: Path) -> None:
    layout.tag("x", layout.image([tar((str(n), os.urandom(9000))) for n in range(5)]))
    told: list[str] = []
    with pytest.raises(Cancelled):
        prepare(OciImage(layout.path), place, progress=lambda what, done: told.append(what),
                cancel=lambda: "unpacking layer 4 of 5" in told)  # fmt: skip
    assert list(place.iterdir()) == []
    assert "unpacking layer 3 of 5" in told


def test_an_image_below_an_overlay_is_unpacked_once(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    layout.tag("x", layout.image([LOWER, UPPER], CONFIG))
    sources, told = [], list[str]()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        prepared = prepare(Overlay(OciImage(layout.path)), tmp_path / name,
                           progress=lambda what, done: told.append(what))  # fmt: skip
        assert prepared.process == PROCESS
        sources.append(prepared.source.split(":"))
    assert sources[0][:2] == sources[1][:2]
    assert sources[1][2] == str(tmp_path / "b" / "rootfs")
    assert {str(p.relative_to(sources[0][1])) for p in Path(sources[0][1]).rglob("*")} == MERGED
    assert told.count("unpacking layer 1 of 2") == 1


@pytest.mark.skipif(shutil.which("umoci") is None, reason="needs umoci")
def test_umoci_unpacks_its_own_image_to_the_same_tree(tmp_path: Path, place: Path) -> None:
    def umoci(*words: object) -> None:
        subprocess.run(["umoci", *map(str, words)], check=True, capture_output=True, timeout=60)

    layout, image = tmp_path / "umoci", f"{tmp_path / 'umoci'}:made"
    umoci("init", "--layout", layout)
    umoci("new", "--image", image)
    (tmp_path / "over.tar").write_bytes(tar("etc/", ("etc/c", b"3"), entry("etc/s", mode=0o4755)))
    umoci("unpack", "--image", image, tmp_path / "bundle")
    root = tmp_path / "bundle/rootfs"
    for name in ("old", "etc"):
        (root / name).mkdir()
    (root / "etc/a").write_text("a")
    (root / "old/x").write_text("x")
    os.chown(root / "etc/a", 5, 6)
    os.setxattr(root / "etc/a", "user.note", b"kept")
    umoci("repack", "--image", image, tmp_path / "bundle")
    (root / "old/x").unlink()
    os.link(root / "etc/a", root / "etc/b")
    (root / "link").symlink_to("etc/a")
    umoci("repack", "--image", image, tmp_path / "bundle")
    umoci("config", "--image", image, "--config.cmd", "/bin/true", "--config.env", "A=b")
    umoci("unpack", "--image", image, tmp_path / "again")
    prepared = prepare(OciImage(layout, "made"), place)
    assert prepared.process is not None
    assert prepared.process.command == ("/bin/true",)
    assert facts(place / "rootfs") == facts(tmp_path / "again/rootfs")
    assert len(facts(place / "rootfs")) == 6


def facts(root: Path) -> dict[str, object]:
    """Everything about a tree that counts."""
    found = {}
    for path in [root, *root.rglob("*")]:
        s = path.lstat()
        what = os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        xattrs = {k: os.getxattr(path, k, follow_symlinks=False)
                  for k in os.listxattr(path, follow_symlinks=False)}  # fmt: skip
        links = s.st_nlink if path.is_file() else 0
        found[str(path.relative_to(root))] = (s.st_mode, s.st_uid, s.st_gid, links, what, xattrs)
    return found


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: OciImage("x", architecture="x86 64"), "architecture"),
        (lambda: OciImage("x", limit=0), "limit"),
        (lambda: DockerArchive("x", limit="lots"), "limit"),
        (lambda: Overlay(Overlay("x")), "base"),
    ],
)
def test_wrong_fields_are_named(make: Any, field: str) -> None:
    with pytest.raises(SpecError) as caught:
        make()
    assert caught.value.field == field
