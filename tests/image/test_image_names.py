"""What is exported is what it is called, and says what it is."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

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
