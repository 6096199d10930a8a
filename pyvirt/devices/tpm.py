"""A Trusted Platform Module: swtpm beside QEMU, or the host's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from attrs import field

from pyvirt import fields
from pyvirt.devices.attached import Attached
from pyvirt.devices.backend import boolean, chardev_id
from pyvirt.errors import SpecError
from pyvirt.fields import frozen
from pyvirt.qemu.need import Companion, HostPath, Need
from pyvirt.qemu.option import Late, Option
from pyvirt.qemu.part import At


@frozen(kw_only=True)
class Tpm(Attached):
    """A TPM, emulated by a swtpm that starts and ends with the VM.

    `state` is the folder that keeps what the guest stores; without one it is forgotten.
    Only one VM at a time may use it. `key` is a file with the key of an encrypted state.
    A VM has at most one TPM, and needs ACPI to see it.
    """

    model: str = field(default="tpm-crb", validator=fields.choice("tpm-crb", "tpm-tis"))
    version: str = field(default="2.0", validator=fields.choice("2.0", "1.2"))
    state: Path | None = field(default=None, converter=fields.to_path)
    key: Path | None = field(default=None, converter=fields.to_path)
    ppi: bool | None = field(default=None, validator=fields.optional(boolean))
    program: str = field(default="swtpm", validator=fields.text)
    arguments: tuple[str, ...] = field(
        default=(), converter=fields.to_tuple, validator=fields.each(fields.text)
    )

    PREFIX, BUS, UNPLUGGABLE = "tpm", "", False

    def __attrs_post_init__(self) -> None:
        if self.model == "tpm-crb" and self.version != "2.0":
            raise SpecError("version", "must be 2.0 for tpm-crb", self.version)
        if self.key is not None and "," in str(self.key):
            raise SpecError("key", "must have no comma: swtpm splits there", str(self.key))

    @property
    def driver(self) -> str:
        return self.model

    def options(self, at: At) -> Iterator[Option | Need]:
        yield self._companion(at)
        chardev = {"backend": "socket", "id": chardev_id(at.name), "path": Late(_swtpm(at))}
        yield Option("chardev", chardev)
        tpmdev = f"{at.name}-tpmdev"
        yield Option("tpmdev", {"type": "emulator", "id": tpmdev, "chardev": chardev_id(at.name)})
        yield self.device(self.model, at, tpmdev=tpmdev, ppi=self.ppi)

    def _companion(self, at: At) -> Companion:
        words: list[str | Late] = ["socket"]
        words += ["--tpm2"] if self.version == "2.0" else []
        words += ["--ctrl", Late("directory", "type=unixio,path={}/socket")]
        # Ends by itself when QEMU closes the channel, however QEMU ended.
        words += ["--terminate"]
        words += [] if self.key is None else ["--key", f"file={self.key}"]
        environment = {}
        if self.state is None:
            words += ["--tpmstate", Late("directory", "dir={}")]
        else:
            # --tpmstate splits at commas, which a folder's name may have.
            environment["TPM_PATH"] = str(self.state)
        return Companion(
            _swtpm(at),
            self.program,
            (*words, *self.arguments),
            hint="install swtpm",
            environment=environment,
        )


def _swtpm(at: At) -> str:
    return f"{at.name}-swtpm"


@frozen
class HostTpm(Attached):
    """The host's own TPM at `path`, for one guest alone."""

    path: Path = field(default=Path("/dev/tpm0"), converter=Path)
    cancel_path: Path | None = field(default=None, converter=fields.to_path, kw_only=True)
    model: str = field(
        default="tpm-crb", validator=fields.choice("tpm-crb", "tpm-tis"), kw_only=True
    )
    ppi: bool | None = field(default=None, validator=fields.optional(boolean), kw_only=True)

    PREFIX, BUS, UNPLUGGABLE = "tpm", "", False

    @property
    def driver(self) -> str:
        return self.model

    def options(self, at: At) -> Iterator[Option | Need]:
        yield HostPath(f"{at.name}-host", self.path, hint="this host has no TPM there")
        given = {"type": "passthrough", "id": f"{at.name}-tpmdev", "path": str(self.path)}
        if self.cancel_path is not None:
            given["cancel-path"] = str(self.cancel_path)
        yield Option("tpmdev", given)
        yield self.device(self.model, at, tpmdev=f"{at.name}-tpmdev", ppi=self.ppi)
