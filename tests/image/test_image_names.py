"""What is exported is what it is called, and says what it is."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

import pyvirt.image
from pyvirt.image import BytesSource, Image

#: Modules that are exported as such.
MODULES = {"begin"}


def test_no_module_hides_what_is_exported() -> None:
    """A submodule becomes an attribute of its package when it is first imported."""
    for name in pyvirt.image.__all__:
        assert isinstance(getattr(pyvirt.image, name), ModuleType) == (name in MODULES), name
    script = "from pyvirt.image import Image, detect, BytesSource; Image(BytesSource(b''))\n"
    script += "from pyvirt.image import detect as again; assert again is detect; print(detect)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert said.stdout.startswith("<function detect"), said.stderr


def test_layers_and_files_say_what_they_are() -> None:
    with Image(BytesSource(bytes(1 << 20)), "raw") as image, image.open() as file:
        assert repr(image.layers[0]) == f"<raw layer of {image.name!r}: 1048576 bytes>"
        file.seek(7)
        assert repr(file) == f"<File of {image.name!r} at 7>"
        assert image.info.allocated is None
    assert repr(file).endswith(" at 7 (closed)>")


@pytest.mark.parametrize("file", [1.5, b"a name", object()])
def test_what_is_no_file_is_said(file: Any) -> None:
    with pytest.raises(TypeError, match="a path, a descriptor or has size and pread"):
        Image(file)


def test_what_is_no_trust_is_said() -> None:
    wrong: Any = 7
    with pytest.raises(TypeError, match="a bool, a directory, a list or a callable, got 7"):
        Image(BytesSource(b""), trust=wrong)


def test_ranges_that_are_empty_have_no_extents_and_negative_ones_are_said() -> None:
    with Image(BytesSource(bytes(4096)), "raw") as image:
        for start, stop in ((0, 0), (5, 3), (4096, None), (1 << 70, None), (0, -1)):
            found = [image.extents(start, stop, chain=chain) for chain in (False, True)]
            assert list(map(len, found)) == [0, 0]
        with pytest.raises(ValueError, match="start must not be negative, got -1"):
            image.extents(-1)
