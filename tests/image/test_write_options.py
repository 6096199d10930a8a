"""Creation options: all that qemu-img has, in its words, and refused where it would refuse."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import attrs
import pytest

from pyvirt.disk import Secret
from pyvirt.errors import SpecError
from pyvirt.image import Encrypt, KeySlot
from pyvirt.qemu_img import calls
from pyvirt.qemu_img.amend import AMENDS, amendment
from pyvirt.qemu_img.answer import fraction, held
from pyvirt.qemu_img.options import FORMATS, options

# Every image has a size, and this is the old spelling of encrypt.format=aes.
ELSEWHERE = {"size", "encryption"}
# So have these, which are parameters of create().
BACKING = {"backing_file", "backing_fmt"}


def offered(*words: str) -> set[str]:
    said = subprocess.run(["qemu-img", *words, "-o", "help", "x"], capture_output=True, text=True)
    return set(re.findall(r"^  ([a-z0-9_.-]+)=<", said.stdout, re.MULTILINE))


def fields(kind: Any, prefix: str = "") -> set[str]:
    return {prefix + each.metadata.get("word", each.name) for each in attrs.fields(kind)}


def described(format: str) -> set[str]:
    found = fields(FORMATS[format])
    if "encrypt" in found:
        found -= {"encrypt"}
        inner = {"luks": "", "qcow2": "encrypt."}.get(format)
        found |= {"encrypt.format", "encrypt.key-secret"} if inner is None else fields(
            Encrypt, inner
        )
    return found - ({"format"} if format == "luks" else set())


@pytest.mark.parametrize("format", FORMATS)
def test_every_option_of_this_qemu_img_is_a_field(format: str) -> None:
    wanted = offered("create", "-f", format) - ELSEWHERE - BACKING
    assert wanted
    assert wanted - described(format) == set()
    assert described(format) - wanted == set()


@pytest.mark.parametrize("format", FORMATS)
def test_backing_is_for_formats_that_have_it(format: str) -> None:
    assert FORMATS[format].overlays == ("backing_file" in offered("create", "-f", format))


def test_every_option_that_can_be_amended_is_a_field() -> None:
    slots = {"keyslot", "new-secret", "old-secret", "state", "iter-time"}
    assert offered("amend", "-f", "luks") == slots
    wanted = offered("amend", "-f", "qcow2") - BACKING - {"size"}
    assert wanted == (fields(AMENDS["qcow2"]) - {"keys"}) | {f"encrypt.{word}" for word in slots}


@pytest.mark.parametrize(
    ("format", "given", "field", "reason"),
    [
        ("qcow2", {"cluster_size": 3000}, "cluster_size", "must be a power of two"),
        ("qcow2", {"cluster_size": "4M"}, "cluster_size", "must be from 512 to 2097152"),
        ("qcow2", {"compat": "v2", "lazy_refcounts": True}, "lazy_refcounts", "needs compat v3"),
        ("qcow2", {"compat": "0.10", "refcount_bits": 1}, "refcount_bits", "needs compat v3"),
        ("qcow2", {"compat": "v2", "compression_type": "zstd"}, "compression_type",
         "needs compat v3"),
        ("qcow2", {"extended_l2": True, "cluster_size": 8192}, "cluster_size",
         "must be at least 16K with extended_l2"),
        ("qcow2", {"data_file_raw": True}, "data_file_raw", "needs data_file"),
        ("qcow2", {"preallocation": "some"}, "preallocation",
         "must be one of off, metadata, falloc, full"),
        ("qcow2", {"clustersize": 1}, "clustersize", "is no option of qcow2, which has nocow, "
         "extent_size_hint, preallocation, cluster_size, compat, compression_type, "
         "extended_l2, lazy_refcounts, refcount_bits, data_file, data_file_raw, encrypt"),
        ("vmdk", {"compat6": True, "hwversion": "4"}, "hwversion", "does not go with compat6"),
        ("vmdk", {"subformat": "monolithicFlat", "zeroed_grain": True}, "zeroed_grain",
         "is not for monolithicFlat"),
        ("vhdx", {"log_size": "1500K"}, "log_size", "must be a multiple of 1048576"),
        ("luks", {}, "encrypt", "must be given for luks: the passphrase"),
        ("qed", {"table_size": 3}, "table_size", "must be a power of two"),
        ("dmg", {}, "format", f"must be one of {', '.join(FORMATS)}"),
    ],
)  # fmt: skip
def test_what_qemu_would_refuse_is_refused_at_birth(
    format: str, given: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(SpecError) as caught:
        options(format, given)
    assert (caught.value.field, caught.value.reason) == (field, reason)


def test_aes_takes_nothing_but_a_passphrase() -> None:
    with pytest.raises(SpecError) as caught:
        Encrypt("secret", format="aes", hash_alg="sha1")
    assert str(caught.value) == "hash_alg is for luks, got 'sha1'"


def test_a_passphrase_is_in_no_repr_and_on_no_command_line() -> None:
    chosen = options("qcow2", {"encrypt": "tell nobody"})
    call = calls.create("/x", 1 << 30, chosen)
    argv = call.argv({"new-encrypt-key-secret": "/proc/self/fd/3"})
    assert "tell nobody" not in f"{chosen!r} {call!r} {argv}"
    assert '"file":"/proc/self/fd/3"' in argv[3]


def test_the_words_of_a_creation() -> None:
    chosen = options("qcow2", {"cluster_size": "1M", "extended_l2": True, "data_file": "a,b"})
    call = calls.create("/d/x.qcow2", 10, chosen, calls.Backing("base,1.raw", "raw"))
    assert call.argv({}) == [
        "qemu-img", "create", "-q", "-f", "qcow2",
        "-o", "cluster_size=1048576,extended_l2=on,data_file=a,,b",
        "-b", "base,1.raw", "-F", "raw", "/d/x.qcow2", "10",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"state": "active"}, "new must be given to set a passphrase, got None"),
        ({"state": "inactive"}, "slot or old must say which to erase, got None"),
        ({"state": "gone"}, "state must be one of active, inactive, got 'gone'"),
    ],
)
def test_a_key_slot_says_what_it_needs(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        KeySlot(**given)
    assert str(caught.value) == message


def test_what_cannot_be_amended_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        amendment("raw", {"size": 1})
    assert str(caught.value) == "format must be one of qcow2, luks to be amended, got 'raw'"
    with pytest.raises(SpecError, match="cluster_size cannot be amended in qcow2"):
        amendment("qcow2", {"cluster_size": 1})


def test_compression_is_for_formats_that_have_it() -> None:
    from pyvirt.image import convert

    with pytest.raises(SpecError) as caught:
        convert("a", "b", "raw", compress=True)
    assert str(caught.value) == "compress is for qcow2, qcow, vmdk, got 'raw'"


def test_progress_is_the_last_number() -> None:
    assert fraction(b"    (0.00/100%)\r    (12.50/100%)\r") == 0.125
    assert fraction(b"    (100.00/100%)\r\n") == 1.0
    assert fraction(b"    (12.5") is None


@pytest.mark.parametrize(
    "words",
    [
        'Failed to get "write" lock',
        'Failed to get shared "consistent read" lock',
        "Failed to lock byte 100",
    ],
)
def test_a_lock_is_told_from_other_faults(words: str) -> None:
    said = f"qemu-img: Could not open 'x': {words}\nIs another process using the image"
    assert held(f"{said} [/d/x]?") == "/d/x"
    assert held(f"{said}?") == ""
    assert held("qemu-img: Could not open 'x': No such file or directory") is None


def test_secrets_of_paths_and_texts_are_the_same_class(tmp_path: Path) -> None:
    assert Encrypt(tmp_path / "key").key == Secret(file=tmp_path / "key")
