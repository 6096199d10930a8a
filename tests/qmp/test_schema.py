from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import SpecError, UnsupportedError
from pyvirt.qmp.check import conform, spelled
from pyvirt.qmp.schema import Schema

# A made-up QEMU in which every kind of type occurs.
ENTITIES = [
    {"name": "str", "meta-type": "builtin", "json-type": "string"},
    {"name": "int", "meta-type": "builtin", "json-type": "int"},
    {"name": "number", "meta-type": "builtin", "json-type": "number"},
    {"name": "bool", "meta-type": "builtin", "json-type": "boolean"},
    {"name": "null", "meta-type": "builtin", "json-type": "null"},
    {"name": "any", "meta-type": "builtin", "json-type": "value"},
    {"name": "0", "meta-type": "object", "members": []},
    {"name": "1", "meta-type": "enum", "values": ["file", "qcow2", "raw"]},
    {"name": "2", "meta-type": "alternate", "members": [{"type": "str"}, {"type": "3"}]},
    {
        "name": "3",
        "meta-type": "object",
        "members": [
            {"name": "driver", "type": "1"},
            {"name": "node-name", "type": "str", "default": None},
            {"name": "x_under", "type": "bool", "default": None},
        ],
        "tag": "driver",
        "variants": [
            {"case": "file", "type": "4"},
            {"case": "qcow2", "type": "5"},
            {"case": "raw", "type": "0"},
        ],
    },
    {
        "name": "4",
        "meta-type": "object",
        "members": [{"name": "filename", "type": "str"}, {"name": "from", "type": "int",
                                                        "default": None}],
    },
    {
        "name": "5",
        "meta-type": "object",
        "members": [{"name": "file", "type": "2"}, {"name": "sizes", "type": "[int]",
                                                   "default": None}],
    },
    {"name": "[int]", "meta-type": "array", "element-type": "int"},
    {"name": "blockdev-add", "meta-type": "command", "arg-type": "3", "ret-type": "0"},
    {"name": "device_add", "meta-type": "command", "arg-type": "6", "ret-type": "0"},
    {"name": "6", "meta-type": "object", "members": [{"name": "driver", "type": "str"}]},
    {"name": "set", "meta-type": "command", "arg-type": "7", "ret-type": "0", "allow-oob": True,
     "features": ["deprecated"]},
    {
        "name": "7",
        "meta-type": "object",
        "members": [
            {"name": "ratio", "type": "number", "default": None},
            {"name": "anything", "type": "any", "default": None},
            {"name": "maybe", "type": "8", "default": None},
        ],
    },
    {"name": "8", "meta-type": "alternate", "members": [{"type": "null"}, {"type": "int"}]},
    {"name": "STOP", "meta-type": "event", "arg-type": "0"},
]  # fmt: skip


@pytest.fixture(params=["decoded", "cached"])
def small(request):
    schema = Schema.decode(json.dumps(ENTITIES).encode())
    return schema if request.param == "decoded" else Schema.from_bytes(schema.to_bytes())


def test_a_schema_knows_its_commands_and_events(small):
    assert small.commands == ("blockdev-add", "device_add", "set")
    assert small.events == ("STOP",)
    assert small.command("set").allow_oob
    assert small.event("STOP").arg_type == "0"
    assert repr(small) == "<Schema of 3 commands and 1 events>"


def test_what_is_not_there_is_told_with_the_nearest_name(small):
    with pytest.raises(UnsupportedError) as caught:
        small.command("blockdev-ad")
    assert (caught.value.what, caught.value.hint) == (
        "command 'blockdev-ad'", "did you mean 'blockdev-add'?")  # fmt: skip
    with pytest.raises(UnsupportedError, match=r"^event 'GO' is not available in this QEMU$"):
        small.event("GO")


@pytest.mark.parametrize(
    ("command", "given", "sent"),
    [
        ("blockdev-add", {"driver": "raw"}, {"driver": "raw"}),
        ("blockdev-add", {"driver": "file", "filename": Path("/x"), "node_name": "n"},
         {"driver": "file", "filename": "/x", "node-name": "n"}),
        ("blockdev-add", {"driver": "file", "filename": "", "from_": 3},
         {"driver": "file", "filename": "", "from": 3}),
        ("blockdev-add", {"driver": "raw", "x_under": True}, {"driver": "raw", "x_under": True}),
        ("blockdev-add",
         {"driver": "qcow2", "file": {"driver": "qcow2", "file": "n", "node_name": "m"}},
         {"driver": "qcow2", "file": {"driver": "qcow2", "file": "n", "node-name": "m"}}),
        ("blockdev-add", {"driver": "qcow2", "file": "n", "sizes": (1, 2)},
         {"driver": "qcow2", "file": "n", "sizes": [1, 2]}),
        ("device_add", {"driver": "e1000", "num_queues": 3, "x-y": 1},
         {"driver": "e1000", "num_queues": 3, "x-y": 1}),
        ("set", {"ratio": 1, "anything": {"a": [None]}, "maybe": None},
         {"ratio": 1, "anything": {"a": [None]}, "maybe": None}),
        ("set", {}, {}),
    ],
)  # fmt: skip
def test_arguments_become_qemus_spelling(small, command, given, sent):
    assert conform(small, command, given) == sent


@pytest.mark.parametrize(
    ("command", "given", "sentence"),
    [
        ("blockdev-add", {}, "blockdev-add.driver is missing, got {}"),
        ("blockdev-add", {"driver": "qcow"},
         "blockdev-add.driver is unknown (did you mean 'qcow2'?), got 'qcow'"),
        ("blockdev-add", {"driver": "?"},
         "blockdev-add.driver must be one of file, qcow2, raw, got '?'"),
        ("blockdev-add", {"driver": 1}, "blockdev-add.driver must be a string, got 1"),
        ("blockdev-add", {"driver": "file"},
         "blockdev-add.filename is missing, got {'driver': 'file'}"),
        ("blockdev-add", {"driver": "raw", "filename": "x"},
         "blockdev-add.filename is unknown, got 'x'"),
        ("blockdev-add", {"driver": "qcow2", "file": {"driver": "file", "filname": "x"}},
         "blockdev-add.file.filname is unknown (did you mean 'filename'?), got 'x'"),
        ("blockdev-add", {"driver": "qcow2", "file": 3},
         "blockdev-add.file must be a string or an object, got 3"),
        ("blockdev-add", {"driver": "qcow2", "file": "n", "sizes": [1, "2"]},
         "blockdev-add.sizes[1] must be an integer, got '2'"),
        ("blockdev-add", {"driver": "qcow2", "file": "n", "sizes": 1},
         "blockdev-add.sizes must be a list, got 1"),
        ("blockdev-add", {"driver": "qcow2", "file": "n", "sizes": [True]},
         "blockdev-add.sizes[0] must be an integer, got True"),
        ("blockdev-add", {"driver": "qcow2", "file": "n", "sizes": [1 << 64]},
         "blockdev-add.sizes[0] must fit into 64 bits, got 18446744073709551616"),
        ("blockdev-add", {"driver": "raw", "node-name": "a", "node_name": "b"},
         "blockdev-add.node-name must be given once, got 'b'"),
        ("blockdev-add", {"driver": "raw", "x_under": 1},
         "blockdev-add.x_under must be True or False, got 1"),
        ("set", {"maybe": "x"}, "set.maybe must be None or an integer, got 'x'"),
        ("set", {"ratio": "x"}, "set.ratio must be a number, got 'x'"),
        ("set", {1: 2}, "set.1 is unknown, got 2"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named_by_their_path(small, command, given, sentence):
    with pytest.raises(SpecError) as caught:
        conform(small, command, given)
    assert str(caught.value) == sentence


def test_a_python_name_stands_for_one_of_qemu():
    assert spelled("a_b", ["a-b"]) == "a-b"
    assert spelled("a_b", ["a-b", "a_b"]) == "a_b"
    assert spelled("a_b_c", ["a-b_c"]) == "a-b_c"
    assert spelled("from_", ["from"]) == "from"
    assert spelled("a_b", ["ab"]) is None


@pytest.mark.parametrize("data", [b"", b"\x90", b"\xc1", b"\x94\x02\x90\x90\x80", b"[]"])
def test_a_damaged_cache_is_refused(data):
    with pytest.raises(SpecError, match="cached schema"):
        Schema.from_bytes(data)


@given(st.data())
def test_a_damaged_cache_gives_a_schema_or_its_own_error(data):
    cached = bytearray(Schema.decode(json.dumps(ENTITIES).encode()).to_bytes())
    cached[data.draw(st.integers(0, len(cached) - 1))] = data.draw(st.integers(0, 255))
    try:
        schema = Schema.from_bytes(bytes(cached[: data.draw(st.integers(0, len(cached)))]))
        for name in schema.commands:
            conform(schema, name, {})
    except (SpecError, UnsupportedError):
        pass


def test_a_reply_that_is_no_schema_is_refused():
    for reply in (b"{}", b'[{"name": 1}]', b'[{"meta-type": "sandwich", "name": "x"}]'):
        with pytest.raises(SpecError, match="schema cannot be read"):
            Schema.decode(reply)


def test_a_real_schema_is_the_same_from_the_cache(schema, schema_reply):
    again = Schema.from_bytes(schema.to_bytes())
    said = {entity["name"]: entity for entity in json.loads(schema_reply)}
    assert (again.commands, again.events) == (schema.commands, schema.events)
    assert set(again.commands) == {n for n, e in said.items() if e["meta-type"] == "command"}
    assert all(again._entity(name) == schema._entity(name) for name in said)
    assert again.to_bytes() == schema.to_bytes()
