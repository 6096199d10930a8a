"""Whether an image of a stranger is safe to hand to QEMU."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

from pyvirt.errors import (
    BudgetError,
    FeatureError,
    ImageError,
    PolicyError,
    PyvirtError,
    UnsupportedError,
    shown,
)
from pyvirt.image.budget import Budget
from pyvirt.image.formats import FORMATS, format_module
from pyvirt.image.layer import Reference
from pyvirt.image.source import FileSource, Source
from pyvirt.image.untrusted import boot, qcow2, vmdk
from pyvirt.image.untrusted.signatures import Sign, signs
from pyvirt.image.untrusted.verdict import Reason, Verdict
from pyvirt.image.untrusted.window import Unseen, Window

__all__ = ["Inspection", "Reason", "Verdict", "inspect_untrusted"]

#: What the content of a raw disk may be.
PLAIN = {"gpt", "mbr", "iso9660"}
#: QEMU says of these that they are for conversion, or nobody has looked at them for years.
RARE = {"qed", "qcow", "bochs", "cloop", "dmg", "parallels"}
CONTAINERS = RARE | {"qcow2", "vmdk", "vdi", "vpc", "vhdx", "luks"}
#: Bytes read at once of a stream.
CHUNK = 1 << 18
BUDGET = Budget(memory=64 << 20)


class Inspection:
    """An inspection of bytes as they pass: `feed` them all, then ask for the `verdict`.

    It keeps 4.25 MiB at most. `inspect_untrusted` does this for files and streams.
    """

    def __init__(self, format: str | None = None) -> None:
        self.format = _known(format)
        self._window = Window()

    def feed(self, data: Any) -> None:
        """The next bytes of the image."""
        self._window.feed(data)

    def verdict(self) -> Verdict:
        """The verdict on all that was fed."""
        return _verdict(self._window, self.format)


def inspect_untrusted(
    file: str | os.PathLike[str] | int | BinaryIO, format: str | None = None
) -> Verdict:
    """Is it safe to hand `file` to QEMU as `format`, and why not?

    `file` is a path, a descriptor or a stream; pipes are read to their end once, in bounded
    memory. Without `format` it is told as what the content says, if it says one thing only.
    """
    format = _known(format)
    if isinstance(file, str | os.PathLike) or (isinstance(file, int) and _seekable(file)):
        with FileSource(file) as source:
            return _verdict(source, format)
    inspection = Inspection(format)
    for chunk in _chunks(file):
        inspection.feed(chunk)
    return inspection.verdict()


def _known(format: str | None) -> str | None:
    if format is not None and format not in CONTAINERS | {"raw"}:
        raise ValueError(f"{format!r} is no format of QEMU's images")
    return format


def _seekable(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def _chunks(file: int | BinaryIO) -> Iterator[bytes]:
    while chunk := os.read(file, CHUNK) if isinstance(file, int) else file.read(CHUNK):
        yield chunk


def _verdict(source: Source, format: str | None) -> Verdict:
    found = signs(source)
    containers = [one.format for one in found if one.format in CONTAINERS]
    chosen = format or (containers[0] if containers else "raw")
    reasons = [*_told(found, chosen), *_guarded(source, chosen, found)]
    names = tuple(one.format for one in found)
    return Verdict(chosen, names, source.size, tuple(dict.fromkeys(reasons)))


def _told(found: tuple[Sign, ...], chosen: str) -> Iterator[Reason]:
    """What the signs of several formats say against `chosen`."""
    names = [one.format for one in found]
    if chosen != "raw" and chosen not in names and chosen != "dmg":
        yield Reason("wrong-format", 0, f"it shows no sign of format {chosen}")
    if chosen in RARE:
        yield Reason("rare-format", 0, f"format {chosen} is too rare to be handed on")
    fixed = chosen == "vpc" and _place(found, "vpc") != 0  # Its content begins at byte 0.
    for one in found:
        if one.format == chosen or ((chosen == "raw" or fixed) and one.format in PLAIN):
            continue
        yield Reason("two-formats", one.offset, f"as {chosen}, it looks like {one.format} as well")
    if {"iso9660"} < set(names) & PLAIN:
        yield Reason("hybrid-iso", 510, "it is an ISO image and a partitioned disk at once")


def _place(found: tuple[Sign, ...], format: str) -> int | None:
    return next((one.offset for one in found if one.format == format), None)


def _guarded(source: Source, chosen: str, found: tuple[Sign, ...]) -> Iterator[Reason]:
    """What the content says, also where the content cannot be read."""
    try:
        yield from _content(source, chosen, found)
        yield from _opened(source, chosen)
    except Unseen as error:
        sentence = "what decides is at a place that was not kept of the stream"
        yield Reason("not-seen", error.offset, sentence)


def _content(source: Source, chosen: str, found: tuple[Sign, ...]) -> Iterator[Reason]:
    if chosen == "qcow2":
        yield from qcow2.reasons(source)
    if chosen == "vmdk":
        yield from vmdk.reasons(source)
    if chosen == "luks":
        version = int.from_bytes(source.pread(2, 6), "big")
        if version != 1:
            yield Reason("unknown-feature", 6, f"QEMU reads LUKS version 1 only, not {version}")
    if any(one.offset == 510 for one in found):
        yield from boot.reasons(source)


def _opened(source: Source, chosen: str) -> Iterator[Reason]:
    """What the reader of the format has to say, which opens no other file."""
    if chosen not in FORMATS:
        return
    try:
        layer = format_module(chosen).open(source, budget=BUDGET, siblings=_refuse)
        yield from map(_reference, layer.references)
    except Unseen:
        raise
    except PolicyError as error:
        yield Reason("extent", None, f"it needs the file {shown(error.reference)!r}")
    except FeatureError as error:
        names = ", ".join(map(shown, error.features))
        yield Reason("unknown-feature", error.offset, f"it needs {names}")
    except BudgetError:
        yield Reason("too-large", None, "its tables need more memory than an inspection may take")
    except (ImageError, UnsupportedError) as error:
        yield Reason("broken", getattr(error, "offset", None), _why(error))


def _refuse(reference: Reference) -> Source:
    raise PolicyError(reference.name, "an inspection opens no other file")


def _reference(reference: Reference) -> Reason:
    sentence = f"it names the file {shown(reference.name)!r} as its {reference.kind}"
    code = {"backing": "backing-file", "data-file": "data-file"}.get(reference.kind, "extent")
    return Reason(code, None, sentence)


def _why(error: PyvirtError) -> str:
    reason = getattr(error, "reason", None) or str(error)
    table = getattr(error, "table", None)
    return shown(f"it {reason}" + (f" in the {table}" if table else ""))
