"""What `kvmproof` found out about /dev/kvm, and how to say it."""

from __future__ import annotations

import errno
import os
from typing import Literal

import msgspec
from attrs import frozen

API = 12  # KVM_API_VERSION, unchanged since 2007.


@frozen
class Evidence:
    """One line of `kvmproof` (csrc/programs/kvmproof.c says what the fields are)."""

    verdict: Literal["native", "slow", "stalled", "refused", "lost"]
    step: str
    error: int = 0
    api: int = 0
    nested: bool = False
    rounds: int = 0
    host: float = 0.0
    guest: float = 0.0

    @property
    def native(self) -> bool:
        """Whether guest code ran on the processor itself."""
        return self.verdict == "native"

    @property
    def ran(self) -> bool:
        """Whether guest code ran at all, so that time was spent on it."""
        return self.verdict != "refused"

    def reason(self, group: str = "") -> str:
        """What is the matter, as the end of "KVM is ..."; /dev/kvm belongs to *group*."""
        match self.verdict:
            case "native":
                where = ", on a host that is a guest itself" if self.nested else ""
                return f"present, and runs guest code natively{where}"
            case "slow" | "stalled":
                return f"present, but does not run guest code natively: {self._pace()}"
            case "lost":
                how = f", KVM exit {self.error}" if self.error else ""
                return f"present, but its test guest was lost: {self.step}{how}"
            case "refused":
                return self._refusal(group)

    def _pace(self) -> str:
        if not (self.rounds and self.host):
            return f"its test guest stalled in {self.step}"
        return f"a loop took {self.guest / self.host:.0f} times as long as on the host"

    def _refusal(self, group: str) -> str:
        what = os.strerror(self.error)
        match self.step, self.error:
            case "open", errno.ENOENT:
                return "absent: there is no /dev/kvm"
            case "open", errno.EACCES if group:
                return f"present, but only group {group} may open /dev/kvm"
            case "open", _:
                return f"present, but opening /dev/kvm failed: {what}"
            case "version", _:
                return f"present, but its interface is version {self.api}, not {API}"
            case "architecture", _:
                return "absent: this processor cannot run x86 code"
        return f"present, but {self.step} failed: {what}"


def read_evidence(line: str) -> Evidence:
    """The evidence in a line of `kvmproof`; ValueError when it is none."""
    return msgspec.json.decode(line, type=Evidence)
