"""The catalogue completes what this QEMU has, and the package its own names."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
from support.qemu import needs_qemu

import pyvirt.devices
from pyvirt.catalogue import Catalogue
from pyvirt.device import Device
from pyvirt.errors import SpecError, UnsupportedError
from pyvirt.running.host.probe import probe


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue(probe("qemu-system-x86_64"))


@needs_qemu
def test_devices_complete_as_attributes_and_by_name(catalogue):
    assert {"edu", "virtio_rng_pci", "usb_kbd", "VGA"} <= set(dir(catalogue))
    assert "virtio-rng-pci" in catalogue._ipython_key_completions_()


@needs_qemu
def test_a_model_makes_a_device(catalogue):
    device = catalogue.virtio_rng_pci(max_bytes=1024, id="rng5")
    assert device == Device("virtio-rng-pci", {"max-bytes": 1024}, id="rng5")
    assert catalogue["cirrus-vga"](vgamem_mb=8) == Device("cirrus-vga", {"vgamem_mb": 8})


@needs_qemu
def test_a_model_tells_its_properties(catalogue):
    found = inspect.signature(catalogue.virtio_rng_pci).parameters
    assert found["max_bytes"].annotation == "uint64"
    assert found["period"].default == 65536
    assert "werror: BlockdevOnError" in catalogue.virtio_blk_pci.__doc__


@needs_qemu
def test_what_is_wrong_is_said(catalogue):
    with pytest.raises(SpecError, match=r"properties.max_byte is not .* did you mean 'max-bytes'"):
        catalogue.virtio_rng_pci(max_byte=1)
    with pytest.raises(AttributeError, match="did you mean 'virtio-rng-pci'"):
        _ = catalogue.virtio_rng_pcie
    with pytest.raises(UnsupportedError):
        catalogue["no-such-thing"]


def test_every_name_of_the_package_is_where_it_says():
    for module, names in pyvirt.devices._MODULES.items():
        found = import_module(f"pyvirt.devices.{module}")
        for name in names.split():
            assert getattr(found, name).__module__ == found.__name__
            assert getattr(pyvirt.devices, name) is getattr(found, name)


def test_type_checkers_are_told_of_the_same_modules():
    stub = Path(pyvirt.devices.__file__).with_suffix(".pyi").read_text()
    assert re.findall(r"from pyvirt\.devices\.(\w+) import", stub) == list(pyvirt.devices._MODULES)


def test_another_name_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'Nope'"):
        _ = pyvirt.devices.Nope
