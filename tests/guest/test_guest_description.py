"""A default guest is checked when it is described, and every error names its field."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import attrs
import pytest

from pyvirt import Guest
from pyvirt.errors import SpecError


@pytest.mark.parametrize(
    ("values", "field", "sentence"),
    [
        ({"binaries": "fio"}, "binaries", "binaries must be a list, got 'fio'"),
        ({"binaries": ["a b"]}, "binaries[0]", "binaries[0] must be a name, got 'a b'"),
        ({"packages": ["x", "-o"]}, "packages[1]", "packages[1] must be a name, got '-o'"),
        ({"modules": [1]}, "modules[0]", "modules[0] must be a name, got 1"),
        ({"files": ["x"]}, "files",
         "files must map paths in the guest to bytes or a Path, got ['x']"),
        ({"files": {"x": b""}}, "files['x']",
         "files['x'] must have an absolute path in the guest, got 'x'"),
        ({"files": {"/a/../b": b""}}, "files['/a/../b']",
         "files['/a/../b'] must have an absolute path in the guest, got '/a/../b'"),
        ({"files": {"/tmp/x": b""}}, "files['/tmp/x']",
         "files['/tmp/x'] would be hidden by a file system that is mounted there, got '/tmp/x'"),
        ({"files": {"/x": "text"}}, "files['/x']",
         "files['/x'] must be bytes or a Path on the host, got 'text'"),
        ({"init": b"x"}, "init", "init must be the text of a script or a Path, got b'x'"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(values: dict[str, Any], field: str, sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        Guest(**values)
    assert caught.value.field == field
    assert str(caught.value) == sentence


@pytest.mark.parametrize("values", [{"qga": "yes"}, {"append": 3}])
def test_a_wrong_kind_is_named(values: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        Guest(**values)
    assert caught.value.field == next(iter(values))


def test_a_guest_is_a_value() -> None:
    guest = Guest(files={"/x": b"1"}, binaries=["fio"], init=Path("script"), kernel="vmlinuz")
    assert guest == attrs.evolve(guest) == pickle.loads(pickle.dumps(guest))
    assert hash(guest) == hash(attrs.evolve(guest))
    assert guest.kernel == Path("vmlinuz")


def test_later_changes_of_the_mapping_do_not_change_the_guest() -> None:
    files: dict[str, bytes | Path] = {"/x": b"1"}
    guest = Guest(files=files)
    files["/y"] = b"2"
    assert dict(guest.files) == {"/x": b"1"}
