from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyvirt.errors import ProtocolError
from pyvirt.guest import protocol
from pyvirt.guest.protocol import PREAMBLE, Decoder, Fields, Frame, Kind, Tag

ROOT = Path(__file__).parents[2]

frames = st.builds(
    Frame,
    st.sampled_from(Kind),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2),
    st.binary(max_size=300),
)


def wire(*some: Frame) -> bytes:
    return b"".join(protocol.encode(Kind(f.kind), f.stream, f.channel, f.payload) for f in some)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


def outcome(parse, data):
    """What `parse` makes of `data`, or its own error; any other error is the test's failure."""
    try:
        return parse(data), None
    except ProtocolError as error:
        return None, error


@given(st.lists(frames, max_size=5), st.lists(st.integers(0, 2000), max_size=8))
def test_frames_survive_any_cutting(some, cuts):
    decoder = Decoder()
    found = [frame for piece in pieces(wire(*some), cuts) for frame in decoder.feed(piece)]
    assert found == some
    assert decoder.offset == len(wire(*some))


def test_frames_survive_byte_by_byte():
    some = [Frame(Kind.DATA, 7, 1, b"x" * 50), Frame(Kind.END, 7, 0, b"")]
    decoder = Decoder()
    assert [f for byte in wire(*some) for f in decoder.feed(bytes([byte]))] == some


@given(st.binary(max_size=400))
def test_anything_gives_frames_or_its_own_error(data):
    found, error = outcome(Decoder().feed, data)
    if error is None:
        assert sum(12 + len(frame.payload) for frame in found) <= len(data)
    else:
        assert 0 <= error.offset <= len(data)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        pytest.param(b"\1\0\4\0" + bytes(4) + b"\x09\1\0\0", "length", id="too-long"),
        pytest.param(bytes(8) + b"\0\0\0\0", "kind", id="kind-zero"),
        pytest.param(bytes(8) + b"\x11\0\0\0", "kind", id="kind-unknown"),
        pytest.param(bytes(8) + b"\x09\3\0\0", "channel", id="channel"),
        pytest.param(bytes(8) + b"\x09\1\1\0", "zero", id="reserved"),
        pytest.param(PREAMBLE, "preamble", id="preamble"),
    ],
)
def test_what_is_no_frame_is_refused_where_it_begins(header, why):
    good = wire(Frame(Kind.PONG, 0, 0, b"12345678"))
    with pytest.raises(ProtocolError) as caught:
        Decoder().feed(good + header)
    assert caught.value.offset == len(good), why
    assert str(caught.value) == "the guest's agent sent what is no frame at byte 20"


@given(st.lists(st.tuples(st.sampled_from(Tag), st.binary(max_size=40))))
def test_fields_come_back(pairs):
    found = Fields(protocol.fields(pairs))
    for tag in Tag:
        assert found.all(tag) == [value for one, value in pairs if one == tag]


def test_fields_of_text_and_numbers():
    found = Fields(protocol.fields([(Tag.PID, 2**63), (Tag.ARG, "ü\udcff")]))
    assert (found.number(Tag.PID), found.text(Tag.ARG)) == (2**63, "ü\udcff")
    assert (found.number(Tag.COUNT), found.text(Tag.CWD, "/")) == (None, "/")


@given(st.binary(max_size=200))
def test_any_payload_is_fields_or_its_own_error(data):
    found, error = outcome(Fields, data)
    if error is None:
        assert sum(4 + len(value) for tag in range(256) for value in found.all(tag)) == len(data)
    else:
        assert 0 <= error.offset < len(data)


def greeting(nonce: bytes) -> bytes:
    payload = protocol.fields([(Tag.VERSION, 1), (Tag.NONCE, nonce)])
    return PREAMBLE + protocol.encode(Kind.HELLO, 0, 0, payload)


@given(
    st.one_of(
        st.binary(max_size=100),
        st.just(PREAMBLE),
        st.just(PREAMBLE[:7]),
        st.just(greeting(b"other")),
        st.just(greeting(b"other")[:-3]),
        st.just(PREAMBLE + wire(Frame(Kind.DATA, 1, 1, b"x" * 90))[:60]),
    ),
    st.lists(st.integers(0, 500), max_size=6),
)
def test_our_hello_is_found_behind_anything(junk, cuts):
    data, kept, found = junk + greeting(b"ours"), b"", None
    for piece in [*pieces(data, cuts), b"rest"]:
        kept += piece
        found, done = protocol.find_hello(kept, b"ours")
        kept = kept[done:]
        if found is not None:
            break
        assert len(kept) < 5000
    assert found is not None
    assert found.number(Tag.VERSION) == 1


def test_python_and_c_agree_on_the_numbers():
    header = (ROOT / "csrc" / "pv_frame.h").read_text()
    kinds = re.search(r"enum pv_kind \{(.*?)\}", header, re.S)
    tags = re.search(r"enum pv_tag \{(.*?)\};", header, re.S)
    assert kinds is not None
    assert tags is not None
    names = re.findall(r"PV_(\w+)", kinds[1])
    assert [*(kind.name for kind in Kind), "KINDS"] == names
    assert [tag.name for tag in Tag] == re.findall(r"PV_TAG_(\w+)", tags[1])
    assert [*Kind] == list(range(1, len(Kind) + 1))
    assert [*Tag] == list(range(1, len(Tag) + 1))
