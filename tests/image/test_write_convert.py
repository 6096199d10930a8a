"""Copies of images: what is in them, and how they were made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from writes import MIB, image, info, io, names, run, sound

from pyvirt.disk import File, Format, Nbd, Node, Raw
from pyvirt.errors import ImageError, SpecError, ToolError
from pyvirt.image import Encrypt, compact, convert, create, rebase
from pyvirt.qemu_img.options import FORMATS

AES = Encrypt("geheim", format="aes")

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="no qemu-img here")


def same(one: Path, format: str, other: Path, other_format: str) -> None:
    run("qemu-img", "compare", "-f", format, "-F", other_format, one, other)


@pytest.mark.parametrize("format", [each for each in FORMATS if each != "luks"])
def test_the_content_is_the_same_in_every_format(tmp_path: Path, format: str) -> None:
    source = image(tmp_path / "a.qcow2", "16M", data="write -P 9 3M 1M")
    made = convert(source, tmp_path / "b", format)
    same(source, "qcow2", made.path, format)
    back = convert(made.path, tmp_path / "c.raw", "raw", source_format=format)
    io(back.path, "read -P 9 3M 1M", "read -P 0 0 3M", format="raw")


@pytest.mark.parametrize(
    "how",
    [
        {"threads": 1},
        {"threads": 16, "out_of_order": True},
        {"sparse": 0},
        {"sparse": "64K"},
        {"rate": "1G"},
        {"compress": True},
        {"compress": True, "compression_type": "zstd"},
        {"salvage": True},
        {"shared": True},
        {"cluster_size": "128K", "preallocation": "metadata"},
    ],
    ids=lambda how: "-".join(how),
)
def test_however_it_is_copied_the_content_is_the_same(tmp_path: Path, how: Any) -> None:
    source = image(tmp_path / "a.qcow2", "16M")
    made = convert(source, tmp_path / "b.qcow2", **how)
    sound(made.path)
    same(source, "qcow2", made.path, "qcow2")


def test_compressed_is_smaller_and_unscanned_is_larger(tmp_path: Path) -> None:
    source = image(tmp_path / "a.qcow2", "16M")
    plain = convert(source, tmp_path / "b.qcow2").allocated
    assert convert(source, tmp_path / "c.qcow2", compress=True).allocated < plain
    assert convert(source, tmp_path / "d.raw", "raw", sparse=0).allocated == 16 * MIB


def test_progress_grows_to_the_whole(tmp_path: Path) -> None:
    told: list[tuple[str, float | None]] = []
    convert(image(tmp_path / "a.qcow2", "16M"), tmp_path / "b.raw", "raw",
            progress=lambda what, done: told.append((what, done)))  # fmt: skip
    assert {what for what, _ in told} == {"converting a.qcow2"}
    done = [part for _, part in told if part is not None]
    assert done == sorted(done)
    assert done[-1] == 1.0


def test_a_progress_that_raises_ends_it(tmp_path: Path) -> None:
    def refuse(what: str, done: float | None) -> None:
        raise LookupError("no terminal")

    with pytest.raises(LookupError, match="no terminal"):
        convert(image(tmp_path / "a.qcow2"), tmp_path / "b.raw", "raw", progress=refuse)
    assert names(tmp_path) == ["a.qcow2"]


def test_a_snapshot_is_copied_as_it_was(tmp_path: Path) -> None:
    source = image(tmp_path / "a.qcow2")
    run("qemu-img", "snapshot", "-c", "before,1", source)
    io(source, "write -P 8 0 4M")
    convert(source, tmp_path / "b.raw", "raw", snapshot="before,1")
    io(tmp_path / "b.raw", "read -P 7 0 4M", format="raw")


def test_bitmaps_come_along_when_asked(tmp_path: Path) -> None:
    source = image(tmp_path / "a.qcow2")
    run("qemu-img", "bitmap", "--add", source, "b0")
    convert(source, tmp_path / "b.qcow2", bitmaps=True)
    data = info(tmp_path / "b.qcow2")["format-specific"]["data"]
    assert [one["name"] for one in data["bitmaps"]] == ["b0"]


def test_a_copy_over_the_same_backing_image_has_only_its_own(tmp_path: Path) -> None:
    image(tmp_path / "base.qcow2")
    top = create(tmp_path / "top.qcow2", backing="base.qcow2", backing_format="qcow2").path
    io(top, "write -P 5 8M 1M")
    copy = tmp_path / "copy.qcow2"
    made = convert(top, copy, backing="base.qcow2", backing_format="qcow2")
    io(copy, "read -P 7 0 4M", "read -P 5 8M 1M")
    assert made.allocated < 3 * MIB
    assert info(copy)["backing-filename"] == "base.qcow2"


def test_a_block_node_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"x" * MIB + b"y" * MIB)
    window = Raw(File(tmp_path / "disk"), offset=MIB, size="1M")
    convert(window, tmp_path / "out.raw", "raw")
    assert (tmp_path / "out.raw").read_bytes() == b"y" * MIB
    with pytest.raises(SpecError) as caught:
        convert(window, tmp_path / "x", source_format="raw")
    assert str(caught.value) == "source_format belongs into the raw node here, got 'raw'"
    with pytest.raises(ToolError, match="No such file"):
        convert(Nbd(path=str(tmp_path / "sock")), tmp_path / "x")


def test_the_format_is_never_guessed(tmp_path: Path) -> None:
    """A guest that wrote a qcow2 header into its raw disk gets no file of the host by it."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 65536)
    evil = tmp_path / "evil.raw"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", evil)
    convert(evil, tmp_path / "out.raw", "raw", source_format="raw")
    assert b"s" * 512 not in (tmp_path / "out.raw").read_bytes()
    with pytest.raises(ToolError) as caught:
        convert(secret, tmp_path / "x.raw", "raw")
    assert caught.value.words == f"Could not open '{secret}': Image is not in qcow2 format"


def test_a_backing_image_of_unknown_format_is_refused(tmp_path: Path) -> None:
    base = image(tmp_path / "base.qcow2")
    top = tmp_path / "top.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top)
    content = bytearray(top.read_bytes())
    place = content.index(b"\xe2\x79\x2a\xca")  # the extension that holds the format
    content[place : place + 4] = b"\x12\x34\x56\x78"
    top.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        convert(top, tmp_path / "out.raw", "raw")
    assert caught.value.reason == (
        f"does not say the format of its backing image {base}; an unsafe rebase says it"
    )
    rebase(top, base, "qcow2", safe=False)
    convert(top, tmp_path / "out.raw", "raw")
    io(tmp_path / "out.raw", "read -P 7 0 4M", format="raw")


def test_a_chain_that_bites_its_tail_is_named(tmp_path: Path) -> None:
    for name, below in (("a", "b"), ("b", "a")):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", below, "-F", "qcow2",
            tmp_path / name, "1M")  # fmt: skip
    with pytest.raises(ImageError) as caught:
        convert(tmp_path / "a", tmp_path / "c")
    trail = " -> ".join(str(tmp_path / name) for name in "aba")
    assert caught.value.reason == f"is its own backing image: {trail}"


def test_a_chain_of_forty_is_copied(tmp_path: Path) -> None:
    below: dict[str, Any] = {}
    for number in range(40):
        name = f"{number}.qcow2"
        words = ["-b", below["name"], "-F", "qcow2"] if below else []
        run("qemu-img", "create", "-q", "-f", "qcow2", "-u", *words, tmp_path / name, "1M")
        below = {"name": name}
    io(tmp_path / "0.qcow2", "write -P 3 0 64K")
    convert(tmp_path / "39.qcow2", tmp_path / "out.raw", "raw")
    io(tmp_path / "out.raw", "read -P 3 0 64K", format="raw")


def test_an_image_onto_itself(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2")
    convert(path, path, compress=True, overwrite=True)
    io(path, "read -P 7 0 4M")
    sound(path)
    assert names(tmp_path) == ["a.qcow2"]


def test_compact_gives_back_what_was_discarded(tmp_path: Path) -> None:
    path = image(tmp_path / "a.qcow2", "64M", "-o", "cluster_size=16k,extended_l2=on")
    run("qemu-img", "bitmap", "--add", path, "b0")
    io(path, "write -P 1 8M 16M", "write -z -u 8M 16M")
    path.write_bytes(path.read_bytes())  # no holes any more
    before = path.stat().st_blocks * 512
    made = compact(path)
    assert made.allocated < before / 2
    data = info(path)["format-specific"]["data"]
    assert (info(path)["cluster-size"], data["extended-l2"]) == (16384, True)
    assert [one["name"] for one in data["bitmaps"]] == ["b0"]
    io(path, "read -P 7 0 4M", "read -P 0 8M 16M")
    sound(path)


def test_compact_keeps_the_backing_image(tmp_path: Path) -> None:
    image(tmp_path / "base.qcow2")
    top = create(tmp_path / "top.qcow2", backing="base.qcow2", backing_format="qcow2").path
    compact(top, compress=True)
    assert info(top)["backing-filename"] == "base.qcow2"
    assert top.stat().st_size < MIB
    io(top, "read -P 7 0 4M")


@pytest.mark.parametrize("what", ["snapshots", "an external data file", "encryption"])
def test_compact_loses_nothing(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.qcow2"
    given = {"an external data file": {"data_file": "d"}, "encryption": {"encrypt": AES}}
    create(path, "1M", **given.get(what, {}))
    if what == "snapshots":
        run("qemu-img", "snapshot", "-c", "s", path)
    before = path.read_bytes()
    with pytest.raises(ImageError) as caught:
        compact(path)
    assert caught.value.reason == f"has {what}, which would be lost"
    assert path.read_bytes() == before


def test_a_node_of_any_driver(tmp_path: Path) -> None:
    nothing = Format("raw", Node("null-co", {"size": MIB, "read-zeroes": True}))
    made = convert(nothing, tmp_path / "z.qcow2")
    assert made.size == MIB
    mapped = json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", made.path))
    assert [one["zero"] for one in mapped] == [True]
