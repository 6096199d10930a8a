"""The test helper itself: starts, answers, reports refusals and deaths."""

from __future__ import annotations

import pytest
from support.qemu import Died, Refused, needs_qemu, start

from pyvirt.qemu.option import Option

pytestmark = needs_qemu


def test_it_answers_and_refuses():
    with start([Option("device", {"driver": "virtio-rng-pci", "id": "rng0"})]) as qemu:
        assert qemu.cmd("query-status")["status"] == "prelaunch"
        assert qemu.get("rng0", "type") == "virtio-rng-pci"
        with pytest.raises(Refused, match="no-such"):
            qemu.cmd("device_add", driver="no-such", id="x")


def test_a_refused_option_ends_with_its_words():
    with pytest.raises(Died) as caught:
        start([Option("device", {"driver": "no-such-device"})])
    assert "no-such-device" in caught.value.words
    assert caught.value.status == 1
