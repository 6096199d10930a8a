"""What QEMU is given for every device and field, against `tests/golden/devices.txt`.

``python tests/devices/test_golden.py`` writes the file anew; read the difference.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

import attrs
import pytest
from cases import BACKENDS, GOLDEN, NAMES, PARTS, lines, value

import pyvirt.devices
from pyvirt.device import Device
from pyvirt.qemu.need import Need
from pyvirt.qemu.option import Option
from pyvirt.qemu.part import At
from pyvirt.qemu.render import argv

CASES = [*lines(PARTS), *lines(BACKENDS)]


def text(line: str) -> str:
    """A case with the needs and words that come of it."""
    found = value(line)
    name = getattr(found, "id", None) or getattr(found, "prefix", "serial") + "0"
    at = At(name) if hasattr(found, "prefix") else name
    return "\n    ".join([line, *_told(found.options(at))]) + "\n"


def _told(items: Iterator[Option | Need]) -> Iterator[str]:
    for item in items:
        if isinstance(item, Option):
            yield " ".join(argv([item]))
        else:
            yield f"needs {_short(item)}"


def _short(need: Need) -> str:
    """A need without what it has by default, and without the bytes of an image."""
    given = {
        field.name: getattr(need, field.name)
        for field in attrs.fields(type(need))
        if getattr(need, field.name) != field.default and field.name not in {"content", "hint"}
    }
    if isinstance(given.get("arguments"), tuple):
        words = (w if isinstance(w, str) else w.form.replace("{}", f"<{w.need}>")
                 for w in given["arguments"])  # fmt: skip
        given["arguments"] = " ".join(words)
    return f"{type(need).__name__} {' '.join(f'{k}={v}' for k, v in given.items() if v)}"


def golden() -> dict[str, str]:
    """The cases of the golden file."""
    parts = re.split(r"^(?=\S)", GOLDEN.read_text(), flags=re.MULTILINE)
    return {part.partition("\n")[0]: part for part in parts if part}


@pytest.mark.parametrize("line", CASES)
def test_words(line):
    assert text(line) == golden()[line]


def test_the_golden_file_has_no_other_cases():
    assert list(golden()) == CASES


def test_every_field_of_every_value_is_in_a_case():
    told = {field for line in CASES for field in re.findall(r"(\w+)=", line)}
    missing = [
        f"{name}.{field.name}"
        for name, kind in {**_classes(), "Device": Device}.items()
        for field in attrs.fields(kind)
        if not _used(name, kind, field.name) and not (field.inherited and field.name in told)
    ]
    assert missing == []


def _classes() -> dict[str, type]:
    found = {name: getattr(pyvirt.devices, name) for name in NAMES}
    return {name: kind for name, kind in found.items() if attrs.has(kind) and name != "Backend"}


def _used(name: str, kind: type, field: str) -> bool:
    """Whether a case gives the field another value than its default."""
    default = getattr(attrs.fields(kind), field).default
    values = [value(line) for line in CASES if re.search(rf"\b{name}\(", line)]
    inner = [v for found in values for v in attrs.asdict(found, recurse=False).values()]
    return any(type(v) is kind and getattr(v, field) != default for v in [*values, *inner])


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text("".join(text(line) for line in CASES))
