"""What is refused at birth, with the field and the reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import SpecError
from pyvirt.machine import (
    CPU,
    DIMM,
    NVDIMM,
    OVMF,
    RTC,
    IOThread,
    Locality,
    Machine,
    Memory,
    NumaNode,
    VirtioMem,
    rules,
)
from pyvirt.machine.numa import spans

G = 1 << 30


def case(build, field: str, message: str):
    return pytest.param(build, field, message, id=message[:50])


@pytest.mark.parametrize(
    ("build", "field", "message"),
    [
        case(
            lambda: Machine("q53"),
            "type",
            "type must be pc, q35, microvm, none or a version such as pc-q35-7.2, got 'q53'",
        ),
        case(
            lambda: Machine(hotplug_ports=17),
            "hotplug_ports",
            "hotplug_ports must be from 0 to 16, got 17",
        ),
        case(lambda: Machine("none", acpi=True), "acpi", "acpi is not there on none, got True"),
        case(
            lambda: Machine("microvm", hpet=False),
            "hpet",
            "hpet is not there on microvm, got False",
        ),
        case(
            lambda: Machine(pcie=True),
            "pcie",
            "pcie is a switch of microvm; others have what they have, got True",
        ),
        case(
            lambda: Machine(kernel_irqchip="maybe"),
            "kernel_irqchip",
            "kernel_irqchip must be one of on, off, split, got 'maybe'",
        ),
        case(lambda: RTC("noon"), "base", "base must be utc, localtime or a datetime, got 'noon'"),
        case(lambda: CPU(0), "count", "count must be from 1 to 4096, got 0"),
        case(lambda: CPU(4, maximum=2), "maximum", "maximum must be at least count, 4, got 2"),
        case(
            lambda: CPU(4, sockets=2, cores=1, threads=1),
            "sockets",
            "sockets x dies x cores x threads must give 4, got (2, None, 1, 1)",
        ),
        case(
            lambda: CPU(3, threads=2),
            "sockets",
            "sockets x dies x cores x threads must give 3, got (None, None, None, 2)",
        ),
        case(lambda: CPU(2, "a,b"), "model", "model must be the name of a CPU model, got 'a,b'"),
        case(lambda: CPU(flags=["+"]), "flags", "flags must be features such as '+avx2', got '+'"),
        case(
            lambda: CPU(properties={"model-id": "a,b"}),
            "properties['model-id']",
            "properties['model-id'] must hold no comma or NUL, got 'a,b'",
        ),
        case(lambda: CPU(2, pins={2: 0}), "pins", "pins must name vCPUs below 2, got 2"),
        case(lambda: CPU(2, pins={0: []}), "pins", "pins must name at least one host CPU, got []"),
        case(
            lambda: IOThread("io0", thread_pool_min=5, thread_pool_max=4),
            "thread_pool_min",
            "thread_pool_min must be at most thread_pool_max, got 5",
        ),
        case(
            lambda: Memory(12345),
            "size",
            "size must be a positive multiple of 8192 bytes, got 12345",
        ),
        case(
            lambda: Memory("3M", hugepages="2M"),
            "size",
            "size must be a positive multiple of 2097152 bytes, got 3145728",
        ),
        case(lambda: Memory("1G", slots=2), "slots", "slots needs a maximum, got 2"),
        case(
            lambda: Memory("1G", maximum="1G"),
            "maximum",
            f"maximum must be above size, which it makes room for, got {G}",
        ),
        case(
            lambda: Memory("1G", path="/x"),
            "path",
            "path belongs to backend file, and to no other, got PosixPath('/x')",
        ),
        case(
            lambda: Memory("1G", backend="anonymous", hugepages="2M"),
            "hugepages",
            "hugepages needs backend memfd; for file, path is a directory on hugetlbfs, "
            "got 2097152",
        ),
        case(
            lambda: Memory("1G", policy="bind"),
            "policy",
            "policy and host_nodes go together, got 'bind'",
        ),
        case(
            lambda: Memory("1G", prealloc=True, reserve=False),
            "reserve",
            "reserve cannot be off with prealloc, got False",
        ),
        case(
            lambda: Memory("1G", nodes=[NumaNode("1G", cpus=[0]), NumaNode("1G")]),
            "size",
            f"size must be the sum of its nodes, {2 * G}, got {G}",
        ),
        case(
            lambda: Memory(nodes=[NumaNode("1G", cpus=[0]), NumaNode("1G", cpus=[0])]),
            "nodes[1].cpus",
            "nodes[1].cpus must be in one node only, got 0",
        ),
        case(
            lambda: Memory(nodes=[NumaNode("1G", distances={0: 20})]),
            "nodes[0].distances",
            "nodes[0].distances must name another node, got 0",
        ),
        case(
            lambda: Memory(nodes=[NumaNode("1G", distances={1: 20}), NumaNode(), NumaNode()]),
            "nodes[0].distances",
            "nodes[0].distances must hold the distance to node 2, as others have one, got {1: 20}",
        ),
        case(
            lambda: Memory(
                nodes=[
                    NumaNode("1G", distances={1: 20, 2: 20}),
                    NumaNode(distances={0: 30}),
                    NumaNode(),
                ]
            ),
            "nodes[1].distances",
            "nodes[1].distances must hold the distance to node 2, "
            "since a pair differs by direction, got {0: 30}",
        ),
        case(
            lambda: NumaNode(distances={1: 10}),
            "distances",
            "distances must be from 11 to 255, got {1: 10}",
        ),
        case(
            lambda: Locality(0, 0),
            "latency",
            "latency or bandwidth must be given, and not both, got None",
        ),
        case(lambda: DIMM(0), "size", "size must be a positive multiple of 8192 bytes, got 0"),
        case(
            lambda: NVDIMM("/x", "32M", label_size="64K"),
            "label_size",
            "label_size must be at least 128 KiB, got 65536",
        ),
        case(
            lambda: VirtioMem("64M", requested="1M"),
            "requested",
            "requested must be a multiple of 2097152 bytes and at most size, got 1048576",
        ),
        case(lambda: OVMF(enrolled=True), "enrolled", "enrolled needs secure_boot, got True"),
        case(lambda: OVMF(code="/c"), "code", "code and template go together, got PosixPath('/c')"),
        case(
            lambda: list(OVMF(secure_boot=True).options("pc")),
            "secure_boot",
            "secure_boot needs machine q35: others have no SMM for it, got True",
        ),
        case(
            lambda: rules.check(Machine("none"), CPU(2), Memory()),
            "cpus.count",
            "cpus.count must be 1: machine none has no more, got 2",
        ),
        case(
            lambda: rules.check(Machine("microvm"), CPU(1, maximum=2), Memory()),
            "cpus.maximum",
            "cpus.maximum is of no use on microvm, got 2",
        ),
        case(
            lambda: rules.check(Machine("microvm"), CPU(), Memory(slots=1, maximum="1G")),
            "memory.slots",
            "memory.slots are of no use on microvm, got 1",
        ),
        case(
            lambda: rules.check(Machine(), CPU(2), Memory(nodes=[NumaNode("1G", cpus=[2])])),
            "memory.nodes[0].cpus",
            "memory.nodes[0].cpus must be below 2, the most vCPUs there can be, got 2",
        ),
        case(
            lambda: rules.check(Machine(), CPU(), Memory(hmat=[Locality(0, 0, latency=1)])),
            "machine.hmat",
            "machine.hmat must be True for memory.hmat, got None",
        ),
    ],
)
def test_refused(build, field, message):
    with pytest.raises(SpecError) as caught:
        build()
    assert caught.value.field == field
    assert str(caught.value) == message


def test_families_and_transports():
    assert [Machine(t).family for t in ("pc", "pc-i440fx-2.12", "q35", "pc-q35-9.1")] == [
        "pc", "pc", "q35", "q35",
    ]  # fmt: skip
    assert Machine("microvm").transports == 24
    assert Machine("microvm", acpi=False).transports == 8
    assert Machine("microvm", properties={"ioapic2": False}).transports == 8


def test_sharing_follows_the_back_end_unless_said():
    assert Memory().shared
    assert not Memory(backend="anonymous").shared
    assert Memory(backend="anonymous", share=True).shared


@given(st.sets(st.integers(0, 200)))
def test_spans_name_exactly_their_numbers(numbers):
    back: set[int] = set()
    for span in spans(numbers):
        first, _, last = span.partition("-")
        back |= set(range(int(first), int(last or first) + 1))
    assert back == numbers
