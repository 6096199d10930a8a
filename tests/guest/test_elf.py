"""ELF files are read as readelf reads them, and damaged ones end in pyvirt's own error."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyvirt._native import program
from pyvirt.errors import ProtocolError
from pyvirt.guest import elf

PROGRAM = "/bin/ls"


def whole() -> bytes:
    return Path(PROGRAM).read_bytes()


def test_a_program_names_its_interpreter_and_libraries() -> None:
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed (Debian: binutils)")
    command = ["readelf", "--wide", "--dynamic", "--program-headers", PROGRAM]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    read = elf.read(whole())
    assert f"[Requesting program interpreter: {read.interpreter}]" in told
    assert [f"[{name}]" for name in read.needed] == [
        line.split()[-1] for line in told.splitlines() if "(NEEDED)" in line
    ]


def test_a_static_program_needs_nothing() -> None:
    read = elf.read(program("keeper").read_bytes())
    assert (read.interpreter, read.needed) == (None, ())


def test_sections_are_found_by_name() -> None:
    read = elf.read(whole())
    assert read.section(".interp") == f"{read.interpreter}\0".encode()
    assert read.section(".no-such-section") == b""


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x01\x01" + bytes(100), bytes(200)])
def test_what_is_no_elf_file_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^tool is not a whole 64-bit ELF file \("):
        elf.read(data, "tool")


@pytest.mark.parametrize("step", range(17))
def test_a_cut_file_is_read_or_refused(step: int) -> None:
    data = whole()
    _read_or_refuse(data[: len(data) * step // 17])
    _read_or_refuse(data[: 64 + 41 * step])


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 2000), junk=st.binary(min_size=1, max_size=16))
def test_a_damaged_file_is_read_or_refused(at: int, junk: bytes) -> None:
    data = whole()
    _read_or_refuse(data[:at] + junk + data[at + len(junk) :])


def _read_or_refuse(data: bytes) -> None:
    with suppress(ProtocolError):
        list(elf.read(data).notes())
