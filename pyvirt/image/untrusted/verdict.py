"""Whether an image of a stranger may be handed to QEMU, and why not."""

from __future__ import annotations

from collections.abc import Collection

from attrs import evolve, frozen

#: What a reason's `code` says; codes stay as they are, sentences may get better.
CODES = {
    "backing-file": "it names an image that it lies on",
    "data-file": "its content is in another file",
    "extent": "its content is in other files, or in files of an unknown number",
    "unknown-feature": "it needs what this library, or QEMU, does not know",
    "corrupt": "it is marked as damaged",
    "wrong-format": "it is not in the format that it is to be handed over as",
    "two-formats": "it is valid in two formats, and programs may disagree which it is",
    "hybrid-iso": "it is an ISO 9660 image that starts as a partitioned disk; many installers are",
    "rare-format": "QEMU's driver of the format is old and not meant for images of strangers",
    "subformat": "the format has kinds that QEMU reads otherwise, and this is one of them",
    "descriptor": "its descriptor has what no tool writes",
    "footer": "its header and its footer contradict each other",
    "boot-record": "its partition table is not as the tools write it",
    "broken": "QEMU would refuse it, or should",
    "too-large": "reading it needs more memory than an inspection may take",
    "not-seen": "what decides is at a place that a stream does not keep",
}


@frozen
class Reason:
    """Why an image is not safe: `code` is one of `CODES`, `offset` the byte that shows it."""

    code: str
    offset: int | None
    sentence: str

    def __str__(self) -> str:
        where = "" if self.offset is None else f" (at byte {self.offset})"
        return f"{self.code}: {self.sentence}{where}"


@frozen
class Verdict:
    """What was found: the image is safe to hand to QEMU as `format` if there are no reasons.

    It speaks of the bytes that were read: hand QEMU the same file, and always with its format.
    """

    format: str
    #: Everything that the content is valid as, "gpt", "mbr" and "iso9660" among it.
    found: tuple[str, ...]
    #: Bytes of the file.
    size: int
    reasons: tuple[Reason, ...]

    @property
    def safe(self) -> bool:
        return not self.reasons

    @property
    def codes(self) -> frozenset[str]:
        return frozenset(reason.code for reason in self.reasons)

    def without(self, *codes: str) -> Verdict:
        """The verdict if these are no reasons for the caller, such as "hybrid-iso"."""
        _known(codes)
        return evolve(self, reasons=tuple(one for one in self.reasons if one.code not in codes))

    def __bool__(self) -> bool:
        raise TypeError("ask the verdict for .safe")

    def __str__(self) -> str:
        if self.safe:
            return f"safe as {self.format}"
        return f"not safe as {self.format}: " + "; ".join(map(str, self.reasons))


def _known(codes: Collection[str]) -> None:
    for code in codes:
        if code not in CODES:
            raise ValueError(f"{code!r} is no code of a reason")
