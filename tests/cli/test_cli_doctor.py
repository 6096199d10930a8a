"""``pyvirt doctor`` on this host, and on one that lacks things."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from cli_tool import document, pyvirt
from support.qemu import needs_qemu

from pyvirt.cli.checks import Finding, _kvm_fix
from pyvirt.cli.doctor import text
from pyvirt.qemu.proof import Evidence
from pyvirt.running.host.accel import prove
from pyvirt.running.host.probe import probe


@needs_qemu
def test_this_host_is_told_as_it_is() -> None:
    made = document("doctor", "--json")
    found = {one["about"]: one for one in made["findings"]}
    assert made["able"] is True
    assert probe().name in found["QEMU"]["words"]
    proved = prove()
    assert found["KVM"]["state"] == ("ok" if proved.name == "kvm" else "limited")
    assert proved.reason.partition(": ")[0] in found["KVM"]["words"]
    assert found["kernel"]["state"] == "ok"
    assert all(one["fix"] for one in made["findings"] if one["state"] != "ok")


@needs_qemu
def test_for_people_it_is_lines() -> None:
    said = pyvirt("doctor")
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.endswith("\nGuests start here.\n")
    assert "\x1b" not in said.stdout


def test_a_host_without_qemu_is_told_what_to_do(tmp_path: Path) -> None:
    made = document("doctor", "--json", code=1, PATH=str(tmp_path))
    (qemu,) = [one for one in made["findings"] if one["about"] == "QEMU"]
    assert (qemu["state"], qemu["fix"], qemu["needed"]) == (
        "missing", "apt install qemu-system-x86", True,
    )  # fmt: skip
    lacking = {one["about"] for one in made["findings"] if one["state"] != "ok"}
    assert {"qemu-img", "swtpm", "passt"} <= lacking
    said = pyvirt("doctor", PATH=str(tmp_path))
    assert said.returncode == 1
    assert "No guest starts here yet" in said.stdout


@pytest.mark.parametrize(
    ("evidence", "fix"),
    [
        (Evidence("refused", "open", errno.EACCES), "usermod -aG kvm"),
        (Evidence("refused", "open", errno.ENOENT), "modprobe kvm_intel"),
        (Evidence("slow", "KVM_RUN"), "nested virtualization"),
        (Evidence("refused", "architecture"), "x86-64"),
    ],
)
def test_each_refusal_of_kvm_has_its_own_advice(evidence: Evidence, fix: str) -> None:
    assert fix in _kvm_fix(evidence)


def test_long_findings_are_wrapped() -> None:
    finding = Finding("KVM", "limited", "word " * 40, "do this")
    lines = text(finding).splitlines()
    assert lines[-1].strip() == "fix: do this"
    assert len(lines) > 3
