"""KVM is used where a guest was seen running on it, and the reason is told otherwise."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from pyvirt._native import program
from pyvirt.errors import SpecError, UnsupportedError
from pyvirt.qemu.proof import Evidence, read_evidence
from pyvirt.running.host import accel
from pyvirt.running.host.accel import Accelerator, choose, prove, run_proof

PROOF = Path(__file__).parents[2] / "csrc/programs/kvmproof.c"
EMULATED = Evidence("stalled", "long mode", 0, 12, True, 400, 0.25, 1000.0)
EMULATED_REASON = (
    "/dev/kvm is present, but does not run guest code natively: "
    "a loop took 4000 times as long as on the host"
)

needs_kvm = pytest.mark.skipif(
    not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="/dev/kvm cannot be opened"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "pyvirt" / "kvm.json"


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> list[Evidence]:
    """A host on which a device opens and the proofs find these, each once, the last one first."""
    found = [EMULATED]
    monkeypatch.setattr(accel, "DEVICE", Path("/dev/null"))
    monkeypatch.setattr(accel, "run_proof", found.pop)
    return found


def test_tcg_needs_no_proof(proofs: list[Evidence]) -> None:
    proofs.clear()
    assert choose("tcg") == Accelerator("tcg", "asked for")
    assert str(choose("tcg")) == "tcg (asked for)"


def test_what_is_no_accelerator_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^accel must be auto, kvm or tcg, got 'xen'$"):
        choose("xen")


def test_a_proved_kvm_is_chosen(proofs: list[Evidence]) -> None:
    native = Evidence("native", "halt", 0, 12, False, 1000, 0.25, 0.25)
    proofs[:] = [native]
    why = "/dev/kvm is present, and runs guest code natively"
    assert choose("auto") == choose("kvm") == Accelerator("kvm", why, native)


def test_an_emulating_kvm_falls_back_and_says_so(proofs: list[Evidence]) -> None:
    assert choose("auto") == Accelerator("tcg", EMULATED_REASON, EMULATED)
    with pytest.raises(UnsupportedError) as caught:
        choose("kvm")
    assert str(caught.value) == f"KVM acceleration is not available in this host; {EMULATED_REASON}"


def test_a_proof_is_remembered(proofs: list[Evidence]) -> None:
    assert prove() == prove()
    assert proofs == []


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"host":"","evidence":{}}'])
def test_a_damaged_cache_is_proved_again(
    proofs: list[Evidence], cache: Path, content: bytes
) -> None:
    cache.parent.mkdir()
    cache.write_bytes(content)
    assert prove().evidence == EMULATED
    assert prove().evidence == EMULATED


def test_another_boot_is_proved_again(proofs: list[Evidence], cache: Path) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    prove()
    other = "00000000-0000-0000-0000-000000000000"
    cache.write_text(cache.read_text().replace(boot, other))
    proofs.append(Evidence("lost", "halt", 8))
    assert prove().reason == "/dev/kvm is present, but its test guest was lost: halt, KVM exit 8"


def test_a_refusal_is_not_remembered(proofs: list[Evidence], cache: Path) -> None:
    proofs[:] = [EMULATED, Evidence("refused", "KVM_CREATE_VM", 16)]
    assert prove().reason.endswith("KVM_CREATE_VM failed: Device or resource busy")
    assert not cache.exists()
    assert prove().evidence == EMULATED


def test_without_a_cache_directory_it_still_answers(
    proofs: list[Evidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc")
    assert prove().evidence == EMULATED


def test_a_proof_that_does_not_end_is_a_stall(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stuck = tmp_path / "stuck"
    stuck.write_text("#!/bin/sh\nexec sleep 100\n")
    stuck.chmod(0o700)
    monkeypatch.setattr(accel, "program", lambda _: stuck)
    monkeypatch.setattr(accel, "LIMIT", 0.1)
    assert run_proof() == Evidence("stalled", "KVM_RUN")


def test_a_proof_that_crashes_is_no_proof(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    crashing = tmp_path / "crashing"
    crashing.write_text("#!/bin/sh\nkill -ILL $$\n")
    crashing.chmod(0o700)
    monkeypatch.setattr(accel, "program", lambda _: crashing)
    assert run_proof() == Evidence("lost", "killed by SIGILL")
    reason = "present, but its test guest was lost: killed by SIGILL"
    assert run_proof().reason() == reason


def test_this_host_gives_an_answer_that_is_kept(cache: Path) -> None:
    """For real: the device, the program and the cache, whatever the answer is."""
    first = prove()
    assert first.evidence is not None
    assert (first.name == "kvm") == (first.evidence.verdict == "native")
    assert first.reason.startswith("/dev/kvm is ")
    assert prove() == first or not first.evidence.ran
    assert cache.exists() == first.evidence.ran


@needs_kvm
def test_the_test_guest_counts_to_its_end(tmp_path: Path) -> None:
    """With few rounds even an emulating KVM gets through, which shows that the guest is right."""
    few = tmp_path / "kvmproof"
    subprocess.run(
        ["cc", "-D_GNU_SOURCE", "-DLONG_ROUNDS=20000", str(PROOF), "-o", str(few)], check=True
    )
    evidence = read_evidence(subprocess.check_output([few], text=True))
    assert evidence.verdict in ("native", "slow")
    assert (evidence.step, evidence.rounds, evidence.api) == ("halt", 20000, 12)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take rights away from a child")
def test_a_user_without_rights_is_told() -> None:
    if not os.path.exists("/dev/kvm") or os.stat("/dev/kvm").st_mode & 0o006:
        pytest.skip("/dev/kvm is absent, or everybody may open it")
    try:
        bare = subprocess.run([program("kvmproof")], capture_output=True, user=65534, group=65534)
    except PermissionError:
        pytest.skip("this checkout is closed to other users")
    evidence = read_evidence(bare.stdout.decode())
    assert evidence.reason("kvm") == "present, but only group kvm may open /dev/kvm"
