"""The same for containers, where the host can have them."""

from __future__ import annotations


def test_a_container_has_its_own_name(pyvirt_container):
    running = pyvirt_container(memory="64M", hostname="inside")
    assert running.run(["hostname"], check=True).stdout == "inside\n"
