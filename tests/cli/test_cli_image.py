"""``pyvirt image`` with real files: what it prints, its JSON, its exit codes, its progress."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pyvirt.cli.group import group
from pyvirt.cli.group import run as main
from pyvirt.cli.output import Output

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="no qemu-img here")

MIB = 1 << 20
Run = Callable[..., Result]


def qemu(*words: str | Path) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A qcow2 image of 64 MiB with a MiB of data at 1 MiB."""
    made = tmp_path / "a.qcow2"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", made, "64M")
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 1M", made)
    return made


def run(*words: object) -> Result:
    """In this process, errors included."""
    result = CliRunner().invoke(group, ["image", *map(str, words)], obj=Output(),
                                standalone_mode=False)  # fmt: skip
    if result.exception is not None:
        raise result.exception
    return result


def code(result: Result) -> Any:
    return result.return_value


def document(*words: object) -> Any:
    return json.loads(run(*words, "--json").stdout)


def process(*words: object) -> subprocess.CompletedProcess[str]:
    """A process of its own, as a shell would start it."""
    command = [sys.executable, "-m", "pyvirt", "image", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True)


def test_an_image_is_made_with_options(tmp_path: Path) -> None:
    made = tmp_path / "x"
    words = ("-o", "cluster_size=1M,lazy_refcounts=on", "-o", "refcount_bits=64")
    assert document("create", made, "10G", *words)["size"] == 10 << 30
    found = json.loads(qemu("qemu-img", "info", "-f", "qcow2", "--output=json", made))
    data = found["format-specific"]["data"]
    assert (found["cluster-size"], data["lazy-refcounts"], data["refcount-bits"]) == (MIB, True, 64)


def test_an_encrypted_image_is_made(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("geheim")
    # LUKS is tried in tests/image: QEMU takes seconds to make a passphrase costly.
    run("create", tmp_path / "b", "1M", "--encrypt", key, "-o", "encrypt.format=aes")
    found = json.loads(qemu("qemu-img", "info", "-f", "qcow2", "--output=json", tmp_path / "b"))
    assert found["format-specific"]["data"]["encrypt"]["format"] == "aes"


def test_info_says_what_it_is(path: Path) -> None:
    lines = dict(line.split(None, 1) for line in run("info", path).stdout.splitlines()[1:])
    assert lines["format"] == "qcow2"
    assert lines["size"] == "64 MiB (67108864 bytes)"
    assert lines["header.cluster_bits"] == "16"
    told = document("info", path)
    assert (told["format"], told["size"], told["info"]["header"]["version"]) == (
        "qcow2", 64 * MIB, 3,
    )  # fmt: skip


def test_info_of_a_chain_needs_trust(tmp_path: Path, path: Path) -> None:
    top = tmp_path / "top.qcow2"
    run("create", top, "-b", "a.qcow2", "-F", "qcow2")
    assert [one["path"] for one in document("info", top, "--chain", "--trust")] == [
        str(top), str(path),
    ]  # fmt: skip
    refused = process("info", top, "--chain")
    assert refused.returncode == 1
    led = f"pyvirt: a.qcow2 was not opened (named by {top}): trust=False opens no other file"
    assert refused.stderr.startswith(led)
    assert len(document("info", top, "--chain", "--trust-in", tmp_path)) == 2


def test_map_has_the_text_of_qemu_img(tmp_path: Path, path: Path) -> None:
    wanted = qemu("qemu-img", "map", "--output=json", "-f", "qcow2", path)
    assert run("map", path, "--chain", "--json").stdout == wanted
    rows = [line.split() for line in run("map", path, "--start", "1M", "--length", "1M")
            .stdout.splitlines()[1:]]  # fmt: skip
    assert [(row[0], row[1], " ".join(row[4:])) for row in rows] == [
        (str(MIB), str(MIB), "allocated, present")
    ]
    run("map", path, "--svg", tmp_path / "m.svg")
    assert (tmp_path / "m.svg").read_text().startswith("<svg ")
    pytest.importorskip("cairosvg")
    run("map", path, "--png", tmp_path / "m.png", "--chain")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")


def test_read_writes_bytes(path: Path) -> None:
    result = run("read", path, "--offset", "1048570", "--size", 10)
    assert result.stdout_bytes == b"\0" * 6 + b"\7" * 4
    assert len(run("read", path).stdout_bytes) == 64 * MIB


def damage(path: Path) -> None:
    """Let the first cluster's refcount say that it is used twice as often: a leak."""
    content = bytearray(path.read_bytes())
    table = int.from_bytes(content[48:56], "big")
    block = int.from_bytes(content[table : table + 8], "big")
    content[block : block + 2] = b"\0\2"
    path.write_bytes(content)


def test_check_has_the_exit_codes_of_qemu_img(tmp_path: Path, path: Path) -> None:
    assert code(run("check", path)) == 0
    damage(path)
    assert code(run("check", path)) == 3
    told = document("check", path)
    assert (told["exit_code"], told["leaks"], len(told["findings"])) == (3, 1, 1)
    content = bytearray(path.read_bytes())
    table = int.from_bytes(content[48:56], "big")
    block = int.from_bytes(content[table : table + 8], "big")
    content[block : block + 2] = b"\0\0"
    path.write_bytes(content)
    assert code(run("check", path)) == 2
    (tmp_path / "raw").write_bytes(b"x" * 512)
    assert code(run("check", tmp_path / "raw", "-f", "raw")) == 63
    (tmp_path / "cut").write_bytes(path.read_bytes()[:60])
    for words in (tmp_path / "none",), (), (path, "--nonsense"), (tmp_path / "cut",):
        assert process("check", *words).returncode == 1
    assert process("compare", path, tmp_path / "none").returncode == 2
    for wanted in (2, 63):
        file, format = (path, "qcow2") if wanted == 2 else (tmp_path / "raw", "raw")
        peer = subprocess.run(["qemu-img", "check", "-f", format, file], capture_output=True)
        assert peer.returncode == wanted


def test_compare_has_the_exit_codes_of_qemu_img(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "b.raw"
    run("convert", path, other, "-O", "raw")
    assert code(run("compare", path, other)) == 0
    with other.open("r+b") as file:
        file.seek(5 * MIB + 3)
        file.write(b"!")
    result = run("compare", path, other)
    assert (code(result), result.stdout) == (1, f"different from byte {5 * MIB + 3} on\n")
    assert document("compare", path, other)["first"] == 5 * MIB + 3
    bad = tmp_path / "bad"
    bad.write_bytes(path.read_bytes()[:100])
    assert code(run("compare", path, bad, "-F", "qcow2")) == 2


def test_compare_of_other_sizes(tmp_path: Path, path: Path) -> None:
    other = tmp_path / "b.raw"
    run("convert", path, other, "-O", "raw")
    run("resize", other, "+1M", "-f", "raw")
    assert code(run("compare", path, other)) == 0
    assert code(run("compare", path, other, "-s")) == 1


def test_measure_says_what_qemu_img_says(path: Path) -> None:
    wanted = json.loads(qemu("qemu-img", "measure", "--output=json", "-f", "qcow2", "-O", "raw",
                             path))  # fmt: skip
    words = ("-o", "cluster_size=1M,preallocation=full")
    full = json.loads(qemu("qemu-img", "measure", "--output=json", "-f", "qcow2", "-O", "qcow2",
                           *words, path))  # fmt: skip
    assert document("measure", path, *words)["required"] == full["required"]
    assert "foo changes nothing" in process("measure", path, "-o", "foo=1").stderr
    told = document("measure", path, "-O", "raw")
    assert (told["required"], told["fully_allocated"]) == (
        wanted["required"], wanted["fully-allocated"],
    )  # fmt: skip


def test_inspect_tells_what_is_safe(tmp_path: Path, path: Path) -> None:
    assert code(run("inspect", path)) == 0
    run("create", tmp_path / "top", "-b", "a.qcow2", "-F", "qcow2")
    result = run("inspect", tmp_path / "top")
    assert code(result) == 1
    assert "backing-file" in result.stdout
    told = document("inspect", tmp_path / "top")
    assert not told["safe"]
    assert {one["code"] for one in told["reasons"]} == {"backing-file"}
    assert code(run("inspect", tmp_path / "top", "--accept", "backing-file")) == 0


def test_images_are_resized_committed_rebased_amended_compacted(tmp_path: Path, path: Path) -> None:
    top = tmp_path / "top"
    run("create", top, "-b", "a.qcow2", "-F", "qcow2")
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 9 2M 1M", top)
    assert document("resize", top, "+64M")["size"] == 128 * MIB
    run("commit", top)
    qemu("qemu-io", "-f", "qcow2", "-c", "read -P 9 2M 1M", path)
    run("rebase", top, "--flat")
    run("amend", top, "-o", "lazy_refcounts=on")
    run("compact", top, "-c")
    assert document("recover", top)["recovered"] is False
    found = json.loads(qemu("qemu-img", "info", "-f", "qcow2", "--output=json", top))
    assert found["format-specific"]["data"]["lazy-refcounts"] is True
    assert "backing-filename" not in found


def test_snapshots_and_bitmaps(path: Path) -> None:
    run("snapshot", "create", path, "one")
    assert [each["name"] for each in document("snapshot", "list", path)["snapshots"]] == ["one"]
    assert "one" in run("snapshot", "list", path).stdout
    run("snapshot", "apply", path, "one")
    run("snapshot", "delete", path, "one")
    run("bitmap", "add", path, "b", "-g", "64K", "--disabled")
    run("bitmap", "add", path, "c")
    run("bitmap", "merge", path, "b", "c")
    for verb in ("enable", "disable", "clear", "remove"):
        run("bitmap", verb, path, "b")
    qemu("qemu-img", "check", "-f", "qcow2", path)


def test_what_is_encrypted_is_read_and_compared_with_its_key(tmp_path: Path, path: Path) -> None:
    key, secret = tmp_path / "key", tmp_path / "secret.qcow2"
    key.write_text("geheim")
    run("convert", path, secret, "--encrypt", key, "-o", "encrypt.format=aes")
    assert code(run("compare", path, secret, "--other-key-file", key)) == 0
    assert code(run("compare", secret, path, "--key-file", key)) == 0
    words = ("--offset", "1M", "--size", "512")
    assert run("read", secret, *words, "--key-file", key).stdout_bytes == run(
        "read", path, *words
    ).stdout_bytes  # fmt: skip
    refused = process("compare", path, secret)
    assert (refused.returncode, "without a passphrase" in refused.stderr) == (2, True)


def test_map_lists_what_a_bitmap_marks(path: Path) -> None:
    run("bitmap", "add", path, "b", "-g", "64K")
    qemu("qemu-io", "-f", "qcow2", "-c", "write 3M 100k", "-c", "write 9M 1", path)
    found = [{"start": 3 * MIB, "length": 128 << 10}, {"start": 9 * MIB, "length": 64 << 10}]
    assert document("map", path, "--bitmap", "b") == found
    part = ("--start", "2M", "--length", str(MIB + 4096))
    assert document("map", path, "--bitmap", "b", *part) == [{"start": 3 * MIB, "length": 4096}]
    rows = [line.split() for line in run("map", path, "--bitmap", "b").stdout.splitlines()[1:]]
    assert rows == [[str(value) for value in one.values()] for one in found]
    refused = process("map", path, "--bitmap", "b", "--svg", "x")
    assert (refused.returncode, "--bitmap lists" in refused.stderr) == (2, True)
    assert "has no bitmap 'c'" in process("map", path, "--bitmap", "c").stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("resize", "FILE", "1M"), "size is less than 67108864; shrink=True loses the rest"),
        (("create", "FILE", "1M"), "FILE: File exists; overwrite=True replaces it"),
        (("snapshot", "apply", "FILE", "x"), "FILE: has no snapshot 'x'"),
        (("create", "NEW", "1M", "-o", "cluster=1"), "cluster is no option of qcow2"),
        (("convert", "FILE", "NEW", "-f", "qed"), "Image not in QED format"),
    ],
)
def test_what_fails_is_one_sentence(path: Path, words: tuple[str, ...], message: str) -> None:
    names = {"FILE": str(path), "NEW": str(path.parent / "new")}
    done = process(*(names.get(word, word) for word in words))
    assert done.returncode == 1
    assert message.replace("FILE", str(path)) in done.stderr
    assert done.stderr.startswith("pyvirt: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not (path.parent / "new").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("create", "x", "1M", "-f", "nothing"),
        ("create", "x", "1M", "-o", "word"),
        ("create", "x", "1M", "-o", "lazy_refcounts=maybe"),
        ("create", "x", "1M", "-o", "encrypt.iter-time=1"),
        ("rebase", __file__),
        ("amend", __file__, "-f", "raw", "-o", "a=b"),
        ("inspect", __file__, "--accept", "everything"),
    ],
)
def test_wrong_words_are_a_usage_error(words: tuple[str, ...]) -> None:
    done = process(*words)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: pyvirt image ")
    assert not Path("x").exists()


def test_errors_are_documents_too(path: Path) -> None:
    done = process("snapshot", "apply", path, "x", "--json")
    told = json.loads(done.stdout)["error"]
    assert (told["type"], told["reason"]) == ("ImageError", "has no snapshot 'x'")


def test_progress_is_for_terminals_only(tmp_path: Path, path: Path) -> None:
    assert process("convert", path, tmp_path / "b").stderr == ""
    script = shutil.which("script")
    if script is None:
        pytest.skip("no script(1) to make a terminal with")
    command = f"{sys.executable} -m pyvirt image convert {path} {tmp_path / 'c'}"
    shown = subprocess.run([script, "-qec", command, "/dev/null"], capture_output=True, text=True,
                           stdin=subprocess.DEVNULL).stdout  # fmt: skip
    assert "converting a.qcow2 [" in shown
    assert "100%" in shown


def test_every_command_has_help() -> None:
    listed = run("-h").stdout
    for name in ("info", "map", "check", "compare", "measure", "read", "inspect", "create",
                 "convert", "compact", "resize", "snapshot", "bitmap", "commit", "rebase",
                 "amend", "recover"):  # fmt: skip
        assert f"  {name} " in listed
        assert "Usage: " in run(name, "-h").stdout


def test_no_name_speaks_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Names of strangers: of the file, and of what it says of itself."""
    word = "a\x1b]0;x\x07\r\n\x9b2Jb"
    path = tmp_path / f"{word}.qcow2".replace("\n", "")
    qemu("qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
    qemu("qemu-img", "snapshot", "-c", word, path)
    qemu("qemu-img", "bitmap", "--add", path, word)
    qemu("qemu-img", "rebase", "-u", "-b", f"{word}.raw", "-F", "raw", path)
    commands = [("info",), ("check",), ("map", "--chain"), ("inspect",), ("snapshot", "list"),
                ("compare", path), ("resize", "2M"), ("info", "--json")]  # fmt: skip
    for command in commands:
        words = [command[0], path, *command[1:]] if command[0] == "resize" else [*command, path]
        main(["image", *map(str, words)])
        said = "".join(capfd.readouterr())
        assert said
        assert not set(said) & {"\x1b", "\x07", "\r", "\x9b"}, (command, said)
