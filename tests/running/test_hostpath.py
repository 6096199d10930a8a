"""What a description wants of the host is there, or the error says what to do."""

from __future__ import annotations

import os

import pytest

from pyvirt.errors import UnsupportedError
from pyvirt.qemu.need import HostPath
from pyvirt.running.host.hostpath import check


def test_what_is_there_is_supplied(tmp_path):
    os.symlink(tmp_path, tmp_path / "driver")
    assert check(HostPath("x", tmp_path)) == str(tmp_path)
    link = HostPath("x", tmp_path / "driver", target=tmp_path.name)
    assert check(link) == str(tmp_path / "driver")


def test_what_is_missing_is_refused_with_the_hint(tmp_path):
    with pytest.raises(UnsupportedError) as caught:
        check(HostPath("vfio0-vfio", tmp_path / "vfio", hint="load vfio-pci"))
    assert (caught.value.what, caught.value.hint) == (str(tmp_path / "vfio"), "load vfio-pci")


def test_another_driver_is_named(tmp_path):
    (tmp_path / "e1000").mkdir()
    os.symlink(tmp_path / "e1000", tmp_path / "driver")
    with pytest.raises(UnsupportedError, match="e1000; bind it") as caught:
        check(HostPath("x", tmp_path / "driver", target="vfio-pci", hint="bind it"))
    assert caught.value.where == "this host, where it is e1000"
