"""Every verdict of `kvmproof` has its sentence, and nothing else passes for evidence."""

from __future__ import annotations

import errno

import msgspec
import pytest

from pyvirt.qemu.proof import Evidence, read_evidence


def line(**changes: object) -> str:
    """A line as `kvmproof` prints it on a good host, with *changes*."""
    good = {
        "verdict": "native",
        "step": "halt",
        "error": 0,
        "api": 12,
        "nested": False,
        "rounds": 16777216,
        "host": 0.25,
        "guest": 0.26,
    }
    return msgspec.json.encode(good | changes).decode() + "\n"


@pytest.mark.parametrize(
    ("changes", "group", "native", "reason"),
    [
        pytest.param({}, "", True, "present, and runs guest code natively", id="native"),
        pytest.param(
            {"nested": True},
            "",
            True,
            "present, and runs guest code natively, on a host that is a guest itself",
            id="nested",
        ),
        pytest.param(
            {"verdict": "slow", "guest": 1250.0},
            "",
            False,
            "present, but does not run guest code natively: "
            "a loop took 5000 times as long as on the host",
            id="emulated",
        ),
        pytest.param(
            {"verdict": "stalled", "step": "long mode", "rounds": 400000, "guest": 1250.0},
            "",
            False,
            "present, but does not run guest code natively: "
            "a loop took 5000 times as long as on the host",
            id="emulated-until-the-deadline",
        ),
        pytest.param(
            {"verdict": "stalled", "step": "entering long mode", "rounds": 0, "guest": 0.0},
            "",
            False,
            "present, but does not run guest code natively: "
            "its test guest stalled in entering long mode",
            id="stalled",
        ),
        pytest.param(
            {"verdict": "lost", "step": "real mode", "error": 17},
            "",
            False,
            "present, but its test guest was lost: real mode, KVM exit 17",
            id="internal-error",
        ),
        pytest.param(
            {"verdict": "refused", "step": "open", "error": errno.ENOENT},
            "",
            False,
            "absent: there is no /dev/kvm",
            id="absent",
        ),
        pytest.param(
            {"verdict": "refused", "step": "open", "error": errno.EACCES},
            "kvm",
            False,
            "present, but only group kvm may open /dev/kvm",
            id="not-in-the-group",
        ),
        pytest.param(
            {"verdict": "refused", "step": "open", "error": errno.EACCES},
            "",
            False,
            "present, but opening /dev/kvm failed: Permission denied",
            id="only-for-root",
        ),
        pytest.param(
            {"verdict": "refused", "step": "open", "error": errno.EPERM},
            "kvm",
            False,
            "present, but opening /dev/kvm failed: Operation not permitted",
            id="device-cgroup",
        ),
        pytest.param(
            {"verdict": "refused", "step": "version", "api": 13},
            "",
            False,
            "present, but its interface is version 13, not 12",
            id="version",
        ),
        pytest.param(
            {"verdict": "refused", "step": "KVM_CREATE_VM", "error": errno.EBUSY},
            "",
            False,
            "present, but KVM_CREATE_VM failed: Device or resource busy",
            id="taken-by-another-hypervisor",
        ),
        pytest.param(
            {"verdict": "refused", "step": "architecture", "api": 0},
            "",
            False,
            "absent: this processor cannot run x86 code",
            id="not-x86",
        ),
    ],
)
def test_each_verdict_says_why(
    changes: dict[str, object], group: str, native: bool, reason: str
) -> None:
    evidence = read_evidence(line(**changes))
    assert (evidence.native, evidence.reason(group)) == (native, reason)
    assert evidence.ran == (evidence.verdict != "refused")


@pytest.mark.parametrize("text", ["", "Killed", "{}", line()[:-3], line(verdict="fine")])
def test_what_is_no_evidence_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_evidence(text)


def test_a_round_trip_keeps_all() -> None:
    evidence = Evidence("stalled", "long mode", 0, 12, True, 5, 0.25, 1000.0)
    assert read_evidence(msgspec.json.encode(evidence).decode()) == evidence
