"""What a notebook shows of a running VM, whatever its guest writes."""

from __future__ import annotations

import pytest
from support.qemu import needs_qemu
from test_html import safe

from pyvirt import RunningVM

pytestmark = [needs_qemu, pytest.mark.timeout(240)]


def test_a_hostile_guest_is_shown_as_text(guest: RunningVM) -> None:
    guest.run(r"printf '<script>alert(1)</script>\033[1m\342\200\256&amp;\n' > /dev/ttyS0")
    guest.wait_for(serial="script", timeout=30)
    text = safe(guest._repr_html_()).text
    assert "<script>alert(1)</script>" in text
    assert "&amp;" in text
    assert guest.accelerator.name in text


def test_results_and_capabilities_of_a_guest(guest: RunningVM) -> None:
    result = guest.run(["printf", r"<img src=x onerror=alert(1)>\000\n"])
    assert "<img src=x onerror=alert(1)>␀" in safe(result._repr_html_()).text
    found = safe(guest.capabilities._repr_html_()).text
    assert guest.capabilities.name in found
    assert str(len(guest.capabilities.schema.commands)) in found
