"""Which accelerator a guest gets: KVM only where a real guest was seen running on it."""

from __future__ import annotations

import grp
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
from attrs import frozen

from pyvirt._native import program
from pyvirt.errors import SpecError, TimedOut, UnsupportedError
from pyvirt.qemu.proof import Evidence, read_evidence
from pyvirt.running.children.process import spawn
from pyvirt.running.host.cache import cache_directory, replace

DEVICE = Path("/dev/kvm")
LIMIT = 0.9  # kvmproof stops itself after 0.6 s, unless the kernel does not let it.


@frozen
class Accelerator:
    """What runs the guest's code, and why this one."""

    name: Literal["kvm", "tcg"]
    reason: str
    evidence: Evidence | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def choose(accel: str) -> Accelerator:
    """The accelerator for "auto", "kvm" or "tcg".

    UnsupportedError when KVM was asked for by name and is not proved; it says why.
    """
    if accel == "tcg":
        return Accelerator("tcg", "asked for")
    if accel not in ("auto", "kvm"):
        raise SpecError("accel", "must be auto, kvm or tcg", accel)
    proved = prove()
    if accel == "kvm" and proved.name != "kvm":
        raise UnsupportedError("KVM acceleration", "this host", proved.reason)
    return proved


def prove() -> Accelerator:
    """KVM when it was seen to run guest code natively since the host was booted, else TCG."""
    evidence = _recall_or_run()
    group = _group() if evidence.step == "open" else ""
    name: Literal["kvm", "tcg"] = "kvm" if evidence.native else "tcg"
    return Accelerator(name, f"/dev/kvm is {evidence.reason(group)}", evidence)


def run_proof() -> Evidence:
    """Run a guest of 2 MiB on /dev/kvm, for at most LIMIT seconds."""
    with spawn([program("kvmproof")]) as proof:
        try:
            end = proof.wait(LIMIT)
        except TimedOut:
            return Evidence("stalled", "KVM_RUN")
        if not end.ok:
            return Evidence("lost", str(end))
        return read_evidence(proof.last_words)


@frozen
class _Remembered:
    host: str
    evidence: Evidence


def _recall_or_run() -> Evidence:
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return run_proof()  # Ends at once, and rights may change at any time.
    file, host = cache_directory() / "kvm.json", _host()
    with suppress(OSError, msgspec.DecodeError):
        remembered = msgspec.json.decode(file.read_bytes(), type=_Remembered)
        if remembered.host == host:
            return remembered.evidence
    evidence = run_proof()
    if evidence.ran:
        with suppress(OSError):  # Without a cache, each process proves anew.
            replace(file, msgspec.json.encode(_Remembered(host, evidence)))
    return evidence


def _host() -> str:
    """What a proof holds for: this boot, this device, these modules with their parameters."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    tool = program("kvmproof").stat()
    words = [boot, f"{DEVICE.stat().st_rdev:x}", f"{tool.st_size}-{tool.st_mtime_ns}"]
    for parameter in sorted(Path("/sys/module").glob("kvm*/parameters/*")):
        with suppress(OSError):  # Some are only for root, some change under us.
            words.append(f"{parameter.parts[3]}.{parameter.name}={parameter.read_text().strip()}")
    return " ".join(words)


def _group() -> str:
    """The group that may open /dev/kvm, if there is one."""
    with suppress(OSError, KeyError):
        info = DEVICE.stat()
        if info.st_mode & 0o060 == 0o060:
            return grp.getgrgid(info.st_gid).gr_name
    return ""
