from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import SpecError
from pyvirt.nic import Nic
from pyvirt.nic.mac import derived, parse
from pyvirt.qemu.part import At


@pytest.mark.parametrize("text", ["52:54:00:AB:cd:01", "52-54-00-ab-cd-01"])
def test_an_address_is_written_one_way(text):
    assert Nic(mac=text).mac == "52:54:00:ab:cd:01"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("52:54:00:12:34", "must be six bytes such as '52:54:00:12:34:56'"),
        ("52:54-00:12:34:56", "must be six bytes such as '52:54:00:12:34:56'"),
        ("52:54:00:12:34:5g", "must be six bytes such as '52:54:00:12:34:56'"),
        ("52:54:00:12:34:56 ", "must be six bytes such as '52:54:00:12:34:56'"),
        (525400123456, "must be six bytes such as '52:54:00:12:34:56'"),
        ("01:00:5e:00:00:01", "must be the address of one card, not of a group"),
        ("ff:ff:ff:ff:ff:ff", "must be the address of one card, not of a group"),
        ("00:00:00:00:00:00", "must not be all zeros, which to QEMU means none"),
    ],
)
def test_a_bad_address_is_refused_by_name(text, reason):
    with pytest.raises(SpecError) as caught:
        Nic(mac=text)
    assert (caught.value.field, caught.value.reason) == ("mac", reason)


@given(st.text(max_size=20))
def test_any_text_is_an_address_or_an_error(text):
    try:
        address = parse(text, "mac")
    except SpecError:
        return
    assert re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", address)


@given(st.text(), st.text())
def test_a_derived_address_is_qemus_and_stays(vm, card):
    address = derived(vm, card)
    assert address.startswith("52:54:00:")
    assert parse(address, "mac") == address == derived(vm, card)


def test_derived_addresses_never_change_between_versions():
    # Guests name their interfaces and remember their leases by these.
    assert derived("vm", "nic0") == "52:54:00:0a:1c:9f"
    assert derived("web", "nic0") != derived("vm", "nic0") != derived("vm", "nic1")
    assert derived("a", "bc") != derived("ab", "c")


def test_a_card_derives_its_address_from_both_names():
    assert Nic().address_in(At("nic0", vm="vm")) == derived("vm", "nic0")
    assert Nic(mac="52:54:00:00:00:01").address_in(At("nic0")) == "52:54:00:00:00:01"


def test_failover_partners_share_their_address():
    primary = Nic(model="e1000e", failover_pair_id="nic0")
    assert primary.address_in(At("nic7", vm="vm")) == Nic().address_in(At("nic0", vm="vm"))
