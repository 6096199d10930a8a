"""Which other files an image may make us open."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from pyvirt.errors import ChainError, PolicyError
from pyvirt.image import BytesSource, FileSource, Image, Reference
from pyvirt.image.beneath import open_beneath
from pyvirt.image.names import Named, NoFile, named
from pyvirt.image.policy import Request

MIB = 1 << 20


def qcow2(path: Path, backing: str | None = None, format: str | None = "qcow2") -> Path:
    """An empty image that names `backing`, whether that is there or not."""
    under = [] if backing is None else ["-u", "-b", backing, *(["-F", format] if format else [])]
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *under, str(path), "1M"]
    subprocess.run(command, check=True, timeout=60)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """An image over another one in the directory below."""
    (tmp_path / "below").mkdir()
    qcow2(tmp_path / "below" / "base.qcow2")
    return qcow2(tmp_path / "top.qcow2", "below/base.qcow2")


def depth(*arguments: object, **options: object) -> int:
    with Image(*arguments, **options) as image:  # type: ignore[arg-type]
        return len(image.layers)


def test_the_default_opens_nothing_else_and_names_who_asked(pair: Path) -> None:
    with Image(pair) as image, pytest.raises(PolicyError) as caught:
        image.layers  # noqa: B018
    assert caught.value.reference == "below/base.qcow2"
    assert caught.value.trail == (str(pair),)
    assert str(caught.value) == (
        f"below/base.qcow2 was not opened (named by {pair}): "
        "trust=False opens no other file; name what may be opened in trust"
    )


def test_an_image_itself_is_read_without_what_lies_below(pair: Path) -> None:
    with Image(pair) as image:
        assert [one.name for one in image.layer.references] == ["below/base.qcow2"]
        assert len(image.extents()) == 1


@pytest.mark.parametrize("trust", ["", "below", True, ["below/base.qcow2"]])
def test_what_is_trusted_is_opened(pair: Path, trust: object) -> None:
    if isinstance(trust, str):
        trust = pair.parent / trust
    elif isinstance(trust, list):
        trust = [pair.parent / one for one in trust]
    assert depth(pair, trust=trust) == 2


def test_a_callback_is_asked_with_the_path_that_qemu_would_open(pair: Path) -> None:
    asked: list[Request] = []

    def allow(request: Request) -> bool:
        asked.append(request)
        return True

    assert depth(pair, trust=allow) == 2
    (request,) = asked
    assert request.reference == Reference("backing", "below/base.qcow2", "qcow2")
    assert request.path == str(pair.parent / "below" / "base.qcow2")
    assert request.trail.names == (str(pair),)


def test_a_callback_may_give_another_file_or_a_source(pair: Path, tmp_path: Path) -> None:
    moved = qcow2(tmp_path / "moved.qcow2")
    (tmp_path / "below" / "base.qcow2").unlink()
    assert depth(pair, trust=lambda request: moved) == 2
    assert depth(pair, trust=lambda request: FileSource(moved)) == 2
    assert depth(pair, trust=lambda request: BytesSource(moved.read_bytes())) == 2


@pytest.mark.parametrize("answer", [None, False])
def test_a_callback_refuses(pair: Path, answer: object) -> None:
    with pytest.raises(PolicyError, match=r"the caller refused it$"):
        depth(pair, trust=lambda request: answer)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "below/../../secret", "link", "below/out/secret"]
)
def test_a_directory_lets_nothing_outside_be_opened(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    (root / "below").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "below" / "out").symlink_to(tmp_path)
    top = qcow2(root / "top.qcow2", name, "raw")
    with pytest.raises(PolicyError) as caught:
        depth(top, trust=root)
    assert caught.value.reference == name


def test_a_link_inside_the_directory_is_followed(tmp_path: Path) -> None:
    qcow2(tmp_path / "base.qcow2")
    (tmp_path / "link").symlink_to("base.qcow2")
    assert depth(qcow2(tmp_path / "top.qcow2", "link"), trust=tmp_path) == 2


def test_no_magic_link_leads_anywhere(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        assert open_beneath("/proc", f"self/fd/{file.fileno()}") is None
    assert open_beneath("/", "proc/self/root") is None


@pytest.mark.timeout(20)
@pytest.mark.parametrize("trust", ["directory", "list", True, "callback"])
def test_neither_fifos_nor_devices_nor_directories_are_opened(
    tmp_path: Path, trust: object
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder", "/dev/null", "/dev/zero"):
        place = tmp_path / name
        allowed = {
            "directory": place.parent if name[0] == "/" else tmp_path,
            "list": [place],
            "callback": lambda request: True,
        }.get(str(trust), True)
        with pytest.raises(PolicyError, match="it is no regular file"):
            depth(qcow2(tmp_path / "top.qcow2", name, "raw"), trust=allowed)


@pytest.mark.parametrize("name", ["/proc/self/mem", "/proc/self/environ", "/sys/kernel/profiling"])
def test_files_of_the_kernel_are_not_opened(tmp_path: Path, name: str) -> None:
    """They are regular files, so only where they lie tells."""
    top = qcow2(tmp_path / "top.qcow2", name, "raw")
    for trust in (True, [name], lambda request: True, Path(name).parent):
        with pytest.raises((PolicyError, ChainError)):
            depth(top, trust=trust)
    reason = "it is a file of the kernel's, which lies on no disk"
    if os.path.exists(name):
        with pytest.raises(PolicyError, match=reason):
            depth(top, trust=True)


def test_a_descriptor_of_a_real_file_may_be_named(tmp_path: Path) -> None:
    """As programs do that were handed their files; a directory lets no such link lead away."""
    with open(qcow2(tmp_path / "base.qcow2"), "rb") as base:
        top = qcow2(tmp_path / "top.qcow2", f"/proc/self/fd/{base.fileno()}", "qcow2")
        assert depth(top, trust=True) == 2
        with pytest.raises(PolicyError):
            depth(top, trust="/proc")


def test_a_missing_file_is_named_with_the_path_that_led_there(tmp_path: Path) -> None:
    middle = qcow2(tmp_path / "middle.qcow2", "gone.qcow2")
    top = qcow2(tmp_path / "top.qcow2", "middle.qcow2")
    for trust in (tmp_path, True, [middle, tmp_path / "gone.qcow2"]):
        with pytest.raises(ChainError) as caught:
            depth(top, trust=trust)
        assert caught.value.path == str(tmp_path / "gone.qcow2")
        assert caught.value.trail == (str(top), str(middle))
        assert isinstance(caught.value.__cause__, FileNotFoundError)
        assert str(caught.value) == (
            f"{tmp_path}/gone.qcow2: could not be opened: No such file or directory "
            f"(named by {top} -> {middle})"
        )


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_cycle_ends_where_it_closes_whatever_the_names(tmp_path: Path, length: int) -> None:
    for number in range(length):
        after = (number + 1) % length
        qcow2(tmp_path / f"{number}", f"./link{after}" if after else "hard")
        (tmp_path / f"link{number}").symlink_to(f"{number}")
    os.link(tmp_path / "0", tmp_path / "hard")
    with pytest.raises(ChainError) as caught:
        depth(tmp_path / "0", trust=tmp_path)
    assert caught.value.reason == "is its own backing image"
    assert len(caught.value.trail) == length


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images, each over the one with the next number."""
    folder = tmp_path_factory.mktemp("ladder")
    content = bytearray(qcow2(folder / "one", "000").read_bytes())
    place = content.index(b"000", int.from_bytes(content[8:16], "big"))
    for number in range(300):
        content[place : place + 3] = b"%03d" % (number + 1)
        (folder / f"{number:03}").write_bytes(content)
    return folder


def test_a_chain_of_300_is_refused_at_the_documented_depth(ladder: Path) -> None:
    qcow2(ladder / "300")
    with pytest.raises(ChainError) as caught:
        depth(ladder / "000", trust=ladder)
    assert caught.value.path == str(ladder / "064")
    assert caught.value.reason.startswith("is one more than the 64 images")
    assert len(caught.value.trail) == 64
    assert "57 more" in str(caught.value)
    assert depth(ladder / "237", trust=ladder) == 64


def test_refused_and_missing_files_leave_no_descriptor_open(ladder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ChainError):
        depth(ladder / "000", trust=ladder)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("name", "path", "format"),
    [
        ("b.qcow2", "/images/b.qcow2", None),
        ("../b", "/images/../b", None),
        ("/x/b", "/x/b", None),
        ("./a:b", "/images/./a:b", None),
        ("d/a:b", "/images/d/a:b", None),
        ("file:/x/b", "/x/b", None),
        ("file:b", "CWD/b", None),
        ('json:{"driver":"file","filename":"/x"}', "/x", "raw"),
        ('json:{"driver":"qcow2","file":{"driver":"file","filename":"/x"}}', "/x", "qcow2"),
        ('json:{"driver":"qed","file.driver":"file","file.filename":"/x"}', "/x", "qed"),
        ('json:{"file.filename":"x"}', "CWD/x", None),
    ],
)
def test_names_are_read_as_qemu_reads_them(name: str, path: str, format: str | None) -> None:
    found = named(Reference("backing", name), "/images/top")
    assert found == Named(path.replace("CWD", os.getcwd()), format)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a\0b",
        "nbd://localhost/x",
        "nbd:unix:/x",
        "ssh://host/x",
        "fat:rw:/etc",
        "host_device:/dev/sda",
        "fd:3",
        "json:",
        "json:[]",
        "json:{",
        "json:" + "[" * 1000,
        'json:{"driver":"nbd","host":"x"}',
        'json:{"driver":"qcow2","file":{"driver":"nbd","path":"/x"}}',
        'json:{"driver":"qcow2","file":"node"}',
        'json:{"driver":"raw","offset":512,"file":{"driver":"file","filename":"/x"}}',
        'json:{"driver":"qcow2","backing":{"driver":"file","filename":"/y"},"file.filename":"/x"}',
        'json:{"driver":7,"file.filename":"/x"}',
        'json:{"driver":"qcow2","file.filename":7}',
        'json:{"driver":"qcow2","file.filename":"/x","file":{"filename":"/y"}}',
    ],
)
def test_names_of_no_plain_file_of_this_host_are_refused(name: str) -> None:
    with pytest.raises(NoFile):
        named(Reference("backing", name), "/images/top")


def test_qemu_opens_the_same_files(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    qcow2(folder / "base.qcow2")
    spec = {"driver": "qcow2", "file": {"driver": "file", "filename": str(folder / "base.qcow2")}}
    for name in ("base.qcow2", f"file:{folder}/base.qcow2", "json:" + json.dumps(spec)):
        top = qcow2(folder / "top.qcow2", name)
        command = ["qemu-img", "map", "--output=json", str(top)]
        subprocess.run(command, check=True, timeout=60, capture_output=True)
        assert depth(top, trust=folder) == 2


def test_a_relative_name_needs_an_image_with_a_path(pair: Path) -> None:
    refused = pytest.raises(PolicyError, match=r"the image was not opened by a path$")
    with FileSource(pair) as source, Image(source, trust=True) as image, refused:
        image.layers  # noqa: B018


def test_names_cannot_speak_to_the_terminal(tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        depth(qcow2(tmp_path / "top.qcow2", "\x1b]0;x\x07", "raw"))
    assert "\x1b" not in str(caught.value)
    assert caught.value.reference == "\x1b]0;x\x07"


# -- Files that are not backing images -----------------------------------------------------------


def pattern(path: Path, format: str, *options: str) -> Path:
    """An image of 1 MiB that reads as 0x5A everywhere."""
    words = [word for option in options for word in ("-o", option)]
    command = ["qemu-img", "create", "-q", "-f", format, *words, str(path), "1M"]
    subprocess.run(command, check=True, timeout=60)
    command = ["qemu-io", "-f", format, "-c", "write -P 0x5A 0 1M", str(path)]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    return path


def test_a_data_file_is_opened_as_trusted_only(tmp_path: Path) -> None:
    data = tmp_path / "disk.data"
    disk = pattern(tmp_path / "disk.qcow2", "qcow2", f"data_file={data}")
    with pytest.raises(PolicyError) as caught, Image(disk) as image:
        image.read(0, 512)
    assert caught.value.reference == str(data)
    for trust in (True, tmp_path, [data]):
        with Image(disk, trust=trust) as image:
            assert image.read(0, 512) == b"\x5a" * 512


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentSparse"])
def test_extents_of_a_vmdk_are_opened_as_trusted_only(tmp_path: Path, subformat: str) -> None:
    disk = pattern(tmp_path / "disk.vmdk", "vmdk", f"subformat={subformat}")
    with pytest.raises(PolicyError) as caught, Image(disk) as image:
        image.read(0, 512)
    assert caught.value.reference.startswith("disk-")
    with Image(disk, trust=tmp_path) as image:
        assert image.read(0, 512) == b"\x5a" * 512


def test_a_vmdk_cannot_reach_out_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"s" * MIB)
    disk = tmp_path / "in" / "disk.vmdk"
    for name in ("../secret", str(tmp_path / "secret"), "/etc/passwd", "nbd:x:1"):
        disk.write_text(
            "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n"
            f'createType="monolithicFlat"\nRW 2048 FLAT "{name}" 0\n'
        )
        with pytest.raises(PolicyError), Image(disk, trust=disk.parent) as image:
            image.read(0, 512)
