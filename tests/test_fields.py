"""What all descriptions share: a repr that is the call which makes them."""

from __future__ import annotations

from typing import Any

import pytest
from support.descriptions import CORPUS, classes

from pyvirt import VM, Disk, Nic
from pyvirt.fields import sized

#: What others are made of, and what is no description.
BASES = {"Address", "Backend", "Drive", "GuestImage", "Wire"}


@pytest.mark.parametrize(("line", "names"), CORPUS, ids=[line[:70] for line, _ in CORPUS])
def test_a_repr_is_the_call_that_makes_the_value(line: str, names: dict[str, Any]) -> None:
    value = eval(line, names)
    shown = repr(value)
    secret = any(word in line for word in ("password", "key=Secret"))
    assert secret or eval(shown, names) == value


def test_a_repr_shows_only_what_was_given() -> None:
    disk = Disk("a.qcow2", bus="scsi", opt_io_size="64K")
    assert repr(disk) == "Disk('a.qcow2', bus='scsi', opt_io_size='64K')"
    assert repr(VM(disks=[disk], cpus=2)) == f"VM(cpus=CPU(2), disks=({disk!r},))"
    assert repr(Nic()) == "Nic()"


def test_sizes_are_written_as_people_do() -> None:
    assert [sized(n) for n in (0, 1000, 1024, 3 << 20, 1 << 40, 1536 << 20)] == [
        0, 1000, "1K", "3M", "1T", "1536M",
    ]  # fmt: skip


def test_every_description_was_tried() -> None:
    text = "\n".join(line for line, _ in CORPUS)
    assert {kind.__name__ for kind in classes() if f"{kind.__name__}(" not in text} == BASES
