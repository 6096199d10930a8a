"""The cloud-init seed: read back by libarchive and by a YAML reader, whatever it holds."""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt.devices import Seed, yamljson
from pyvirt.devices.iso9660 import image
from pyvirt.errors import SpecError

yaml = pytest.importorskip("yaml")

needs_bsdtar = pytest.mark.skipif(
    shutil.which("bsdtar") is None, reason="bsdtar is not installed (libarchive-tools)"
)
needs_blkid = pytest.mark.skipif(shutil.which("blkid") is None, reason="blkid is not installed")


def unpack(content: bytes) -> dict[str, bytes]:
    """The files of an image, as libarchive reads them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "seed.iso")
        path.write_bytes(content)
        subprocess.run(["bsdtar", "-xf", path, "-C", folder], check=True, capture_output=True)
        path.unlink()
        return {found.name: found.read_bytes() for found in Path(folder).iterdir()}


@needs_bsdtar
def test_all_four_files_are_there():
    seed = Seed(
        {"hostname": "a, b", "users": ["default"]},
        network_config={"version": 2, "ethernets": {"eth0": {"dhcp4": True}}},
        meta_data={"local-hostname": "a"},
        vendor_data="#!/bin/sh\necho vendor\n",
    )
    files = unpack(seed.image())
    assert sorted(files) == ["meta-data", "network-config", "user-data", "vendor-data"]
    assert files == seed.files()
    assert files["user-data"].startswith(b"#cloud-config\n")
    assert yaml.safe_load(files["user-data"]) == {"hostname": "a, b", "users": ["default"]}
    assert yaml.safe_load(files["network-config"])["ethernets"]["eth0"]["dhcp4"] is True
    assert files["vendor-data"] == b"#!/bin/sh\necho vendor\n"


@needs_bsdtar
@settings(max_examples=25, deadline=None)
@given(user=st.binary(max_size=5000), vendor=st.binary(max_size=5000))
def test_any_bytes_survive(user, vendor):
    seed = Seed(user, vendor_data=vendor, meta_data=b"instance-id: x\n")
    expected = {"user-data": user, "vendor-data": vendor, "meta-data": b"instance-id: x\n"}
    assert unpack(seed.image()) == expected


@needs_blkid
def test_it_is_found_by_its_label():
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(Seed().image())
        words = ["blkid", "-p", "-o", "export", file.name]
        found = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert "LABEL=cidata" in found
    assert "TYPE=iso9660" in found


@needs_bsdtar
@settings(max_examples=25, deadline=None)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", max_codepoint=0xFFFF, exclude_characters="/\0;*?:\\",
                              exclude_categories=("C", "Z")), min_size=1, max_size=30),
        st.binary(max_size=3000),
        max_size=8,
    )
)  # fmt: skip
def test_an_image_of_any_files_is_read_back(files):
    files = {name: content for name, content in files.items() if name not in (".", "..")}
    assert unpack(image(files, "label")) == files


def test_another_reader_agrees():
    pycdlib = pytest.importorskip("pycdlib")
    import io

    files = {"user-data": b"u" * 4097, "meta-data": b"", "network-config": b"n"}
    disc = pycdlib.PyCdlib()
    disc.open_fp(io.BytesIO(image(files, "cidata")))
    for name, content in files.items():
        out = io.BytesIO()
        disc.get_file_from_iso_fp(out, joliet_path=f"/{name}")
        assert out.getvalue() == content
    assert disc.pvd.volume_identifier.rstrip() == b"CIDATA"


def test_too_many_files_are_refused():
    with pytest.raises(ValueError, match="100 files do not fit one folder of 2048 bytes"):
        image({f"a-rather-long-name-{n}": b"" for n in range(100)}, "label")


def test_the_same_contents_give_the_same_bytes_and_others_another_instance():
    assert Seed({"a": 1}).image() == Seed({"a": 1}).image()
    first, second = (Seed({"a": n}).files()["meta-data"] for n in (1, 2))
    assert yaml.safe_load(first)["instance-id"] != yaml.safe_load(second)["instance-id"]


def test_an_instance_id_of_the_users_own_stays():
    files = Seed(meta_data={"instance-id": "mine"}).files()
    assert yaml.safe_load(files["meta-data"]) == {"instance-id": "mine"}
    assert Seed(meta_data="instance-id: text\n").files()["meta-data"] == b"instance-id: text\n"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=40), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(json_values)
def test_a_yaml_reader_reads_what_was_meant(value):
    assert yaml.safe_load(yamljson.dumps(value, "user_data")) == value


@pytest.mark.parametrize("text", ["\x85", "\u2028", "\x7f", "\ufeff", "😀", "a: b", "- x", "null"])
def test_awkward_text_stays_text(text):
    assert yaml.safe_load(yamljson.dumps({text: text}, "user_data")) == {text: text}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "must be a finite number"),
        (math.inf, "must be a finite number"),
        ({1: 2}, "must have keys of at most 128 letters"),
        ({"k" * 129: 2}, "must have keys of at most 128 letters"),
        ({"a": b"bytes"}, "must hold text, numbers, booleans, None, lists and mappings"),
        ("\ud800", "must be text that UTF-8 can hold"),
    ],
)
def test_what_json_has_no_word_for_is_refused_at_birth(value, reason):
    with pytest.raises(SpecError) as caught:
        Seed({"key": value})
    assert (caught.value.field, caught.value.reason) == ("user_data", reason)


def test_a_list_is_no_file():
    with pytest.raises(SpecError, match="network_config must be a mapping, text or bytes"):
        Seed(network_config=["a"])
