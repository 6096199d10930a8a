"""What the machine runs first: SeaBIOS, UEFI (OVMF), qboot, or a file of the user's.

Where UEFI's files are is written in descriptors that distributions install for QEMU
(docs/interop/firmware.json); `find` chooses among them, and reading them is an act.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from attrs import field

from pyvirt.errors import SpecError, UnsupportedError
from pyvirt.fields import frozen, kind, text, to_path
from pyvirt.qemu.need import CopiedFile, Need
from pyvirt.qemu.option import Late, Option

_CODE, _VARS = "firmware-code", "firmware-vars"


@frozen
class Descriptor:
    """One firmware as its descriptor tells: its files, machines and features."""

    description: str
    interfaces: tuple[str, ...]
    code: Path
    template: Path | None
    machines: tuple[str, ...]
    features: frozenset[str]

    def fits(self, machine: str, wanted: Iterable[str], unwanted: Iterable[str]) -> bool:
        """Whether it boots `machine` with all of `wanted` and none of `unwanted`."""
        runs = any(fnmatchcase(_versioned(machine), pattern) for pattern in self.machines)
        return runs and self.features >= set(wanted) and self.features.isdisjoint(unwanted)


def _versioned(machine: str) -> str:
    """A machine name that the patterns of descriptors match: they are written for versions."""
    return {"q35": "pc-q35-0.0", "pc": "pc-i440fx-0.0"}.get(machine, machine)


def descriptor(document: Mapping[str, Any]) -> Descriptor | None:
    """The x86 flash firmware that a parsed descriptor file describes, else None.

    Files of other kinds (for other targets, memory-mapped, or of a later format) are valid
    and not for us.
    """
    mapping = document.get("mapping", {})
    targets = [t for t in document.get("targets", ()) if t.get("architecture") == "x86_64"]
    code = mapping.get("executable", {})
    if mapping.get("device") != "flash" or not targets or code.get("format", "raw") != "raw":
        return None
    template = mapping.get("nvram-template", {}).get("filename")
    return Descriptor(
        description=str(document.get("description", "")),
        interfaces=tuple(document.get("interface-types", ())),
        code=Path(code["filename"]),
        template=Path(template) if template else None,
        machines=tuple(name for target in targets for name in target.get("machines", ())),
        features=frozenset(document.get("features", ())),
    )


def find(descriptors: Iterable[Descriptor], files: UefiFiles) -> Descriptor:
    """The first UEFI firmware that fits. Raises `UnsupportedError`."""
    wanted = {"secure-boot", "requires-smm"} if files.secure_boot else set()
    wanted |= {"enrolled-keys"} if files.enrolled else set()
    unwanted = set() if files.secure_boot else {"secure-boot", "requires-smm"}
    unwanted |= set() if files.enrolled else {"enrolled-keys"}
    for candidate in descriptors:
        if "uefi" not in candidate.interfaces or candidate.template is None:
            continue
        if candidate.fits(files.machine, wanted, unwanted):
            return candidate
    what = "UEFI firmware with secure boot" if files.secure_boot else "UEFI firmware"
    where = f"the firmware descriptors of this host, for machine {files.machine}"
    raise UnsupportedError(what, where, "install the package ovmf, or name code and template")


@frozen
class UefiFiles(Need):
    """Files of the UEFI that the host's descriptors name for `machine`.

    Supplies ``<name>.code`` and ``<name>.vars``: the latter is a writable copy of the
    variable store's template, kept at `store` when given (made once), else temporary.
    """

    machine: str
    secure_boot: bool = False
    enrolled: bool = False
    store: Path | None = None


class Bios:
    """What the machine runs first. `options` are asked with the machine's type."""

    __slots__ = ()

    def options(self, machine: str = "q35") -> Iterator[Option | Need]:
        raise NotImplementedError


@frozen
class Rom(Bios):
    """Firmware in a file: its name in QEMU's data directories, or a path."""

    path: str = field(converter=str, validator=text)

    def options(self, machine: str = "q35") -> Iterator[Option | Need]:
        """``-bios``."""
        yield Option("bios", self.path)


@frozen
class SeaBIOS(Bios):
    """SeaBIOS: what pc, q35 and, in a build of its own, a microvm with ACPI run by themselves."""

    def options(self, machine: str = "q35") -> Iterator[Option | Need]:
        """``-bios``."""
        yield Option("bios", "bios-microvm.bin" if machine == "microvm" else "bios-256k.bin")


@frozen
class QBoot(Bios):
    """qboot, which starts a kernel in milliseconds: what a microvm without ACPI runs by itself."""

    def options(self, machine: str = "q35") -> Iterator[Option | Need]:
        """``-bios``."""
        yield Option("bios", "qboot.rom")


@frozen(kw_only=True)
class OVMF(Bios):
    """UEFI.

    `secure_boot` runs it in SMM and protects its variables; `enrolled` starts with
    Microsoft's keys in them, so that only signed loaders start. `store` is where the VM
    keeps its own variables (made once from the template); without it they last as long as
    the VM runs. `code` and `template` name the files; without them the host's firmware
    descriptors do.
    """

    secure_boot: bool = field(default=False, validator=kind(bool))
    enrolled: bool = field(default=False, validator=kind(bool))
    store: Path | None = field(default=None, converter=to_path)
    code: Path | None = field(default=None, converter=to_path)
    template: Path | None = field(default=None, converter=to_path)

    def __attrs_post_init__(self) -> None:
        if (self.code is None) != (self.template is None):
            raise SpecError("code", "and template go together", self.code)
        if self.enrolled and not self.secure_boot:
            raise SpecError("enrolled", "needs secure_boot", True)

    def options(self, machine: str = "q35") -> Iterator[Option | Need]:
        """Two flash chips: the code, which nobody writes, and the variables."""
        if self.secure_boot and "q35" not in machine:
            raise SpecError("secure_boot", "needs machine q35: others have no SMM for it", True)
        yield self._need(machine)
        code = str(self.code) if self.code is not None else Late("firmware.code")
        store = Late("firmware") if self.code is not None else Late("firmware.vars")
        yield _flash(_CODE, code, readonly=True)
        yield _flash(_VARS, store, readonly=False)
        yield Option("machine", {"pflash0": _CODE, "pflash1": _VARS})
        if self.secure_boot:
            yield Option("machine", {"smm": True}, source="secure_boot")
            # Only code in SMM may write the variables, or the guest's kernel could.
            secure = {"driver": "cfi.pflash01", "property": "secure", "value": True}
            yield Option("global", secure, source="secure_boot")

    def _need(self, machine: str) -> Need:
        if self.template is not None:
            return CopiedFile("firmware", self.template, self.store)
        return UefiFiles("firmware", machine, self.secure_boot, self.enrolled, self.store)


def _flash(node: str, path: str | Late, *, readonly: bool) -> Option:
    file = {"driver": "file", "filename": path}
    properties: dict[str, Any] = {"driver": "raw", "node-name": node, "file": file}
    return Option("blockdev", properties | ({"read-only": True} if readonly else {}))
