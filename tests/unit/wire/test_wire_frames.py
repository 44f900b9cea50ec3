"""Frames and codec against well-formed, mutated and random input."""

from __future__ import annotations

import enum
import json
import struct
import tracemalloc
from dataclasses import dataclass, field
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modal.exception
from modal._wire import errors
from modal._wire.codec import decode, encode
from modal._wire.errors import TooLarge, WireError, from_error_info, to_error_info
from modal._wire.frames import FRAME_LIMIT, HEADER_LIMIT, FrameDecoder, length_prefixed, pack, unpack
from modal._wire.messages import app, blob, call, common, function, image, mount, runner
from modal._wire.messages import server as server_messages

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
headers = st.dictionaries(st.text(max_size=8), json_values, max_size=4)

MESSAGES = sorted(
    {
        value
        for module in (app, blob, call, common, function, image, mount, runner, server_messages)
        for value in vars(module).values()
        if isinstance(value, type) and hasattr(value, "__dataclass_fields__") and value is not common.Method
    },
    key=lambda cls: cls.__name__,
)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Leaf:
    weight: float
    colour: Colour = Colour.RED


@dataclass(frozen=True)
class Tree:
    name: str
    count: int = 0
    good: bool = True
    best: Optional[Leaf] = None
    leaves: list[Leaf] = field(default_factory=list)
    by_name: dict[str, Leaf] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    default_leaf: Leaf = field(default_factory=lambda: Leaf(1.0))


leaves = st.builds(Leaf, st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(Colour))
trees = st.builds(
    Tree,
    st.text(),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.none() | leaves,
    st.lists(leaves, max_size=3),
    st.dictionaries(st.text(), leaves, max_size=3),
    st.dictionaries(st.text(), json_values, max_size=3),
    leaves,
)


@given(headers, st.binary(max_size=200))
def test_a_packed_frame_unpacks_to_the_same(header, body):
    got, view = unpack(pack(header, body))
    assert got == header
    assert view == body


@given(st.lists(st.tuples(headers, st.binary(max_size=50)), max_size=5), st.data())
def test_the_decoder_finds_the_same_frames_however_the_stream_is_cut(frames, data):
    packed = [pack(*frame) for frame in frames]
    stream = b"".join(length_prefixed(frame) for frame in packed)
    decoder = FrameDecoder()
    got = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += [bytes(frame) for frame in decoder.feed(stream[:size])]
        stream = stream[size:]
    assert got == packed


@given(st.binary(max_size=300))
def test_random_bytes_are_a_frame_or_a_wire_error(data):
    try:
        unpack(data)
    except WireError:
        pass


@given(headers, st.binary(max_size=20), st.data())
def test_mutated_frames_are_a_frame_or_a_wire_error(header, body, data):
    frame = bytearray(pack(header, body))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    del frame[data.draw(st.integers(0, len(frame))) :]
    try:
        got, _ = unpack(bytes(frame))
    except WireError:
        return
    pack(got)


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_random_streams_are_frames_or_a_wire_error(chunks):
    decoder = FrameDecoder(limit=1000)
    for chunk in chunks:
        try:
            for frame in decoder.feed(chunk):
                unpack(frame)
        except WireError:
            pass


def test_an_announced_length_allocates_nothing():
    decoder = FrameDecoder()
    tracemalloc.start()
    try:
        assert decoder.feed(struct.pack(">I", FRAME_LIMIT) + b"x") == []
        for _ in range(10_000):
            decoder.feed(b"y")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [0, 5, FRAME_LIMIT + 1, 2**32 - 1])
def test_an_impossible_length_breaks_the_decoder_for_good(length):
    decoder = FrameDecoder()
    with pytest.raises(WireError, match=f"A frame of {length} bytes was announced"):
        decoder.feed(struct.pack(">I", length))
    with pytest.raises(WireError, match=f"A frame of {length} bytes was announced"):
        decoder.feed(length_prefixed(pack({})))


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b'"text"',
        b'{"a": 1e999}',
        b'{"a": 1',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": "\\ud800"}',
        b'{"a": "\\uD834"}',
        b'{"a": "\xff"}',
        b'{"a": 1}{}',
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"a": %s}' % (b"9" * 500_000),
    ],
    ids=range(13),
)
def test_a_header_that_is_not_a_json_object_of_text_is_refused(header):
    with pytest.raises(WireError, match=r"not valid JSON|not a JSON object"):
        unpack(struct.pack(">I", len(header)) + header)


@pytest.mark.parametrize(
    "header",
    [{"a": float("nan")}, {"a": "\ud800"}, {"a": object()}, {"a": b"bytes"}],
    ids=["nan", "text", "object", "b"],
)
def test_what_is_not_json_is_not_packed(header):
    with pytest.raises(WireError):
        pack(header)


def test_frames_over_a_limit_are_refused_on_both_sides():
    with pytest.raises(TooLarge):
        pack({"a": "x" * HEADER_LIMIT})
    with pytest.raises(TooLarge):
        pack({}, bytes(FRAME_LIMIT))
    with pytest.raises(TooLarge):
        unpack(bytes(FRAME_LIMIT + 1))
    with pytest.raises(TooLarge):
        unpack(struct.pack(">I", HEADER_LIMIT + 1) + bytes(HEADER_LIMIT + 1))


@given(trees)
def test_messages_survive_the_wire(tree):
    header, _ = unpack(pack(encode(tree)))
    assert decode(Tree, header) == tree


def test_defaults_are_left_out_and_come_back():
    assert encode(Tree("x")) == {"name": "x"}
    assert decode(Tree, {"name": "x", "unknown": 1}) == Tree("x")
    assert decode(Tree, {"name": "x"}).leaves is not decode(Tree, {"name": "x"}).leaves


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ([], "Tree: expected an object, got a list"),
        ({}, "Tree.name: is missing"),
        ({"name": None}, "Tree.name: expected text, got null"),
        ({"name": "x", "count": True}, "Tree.count: expected an integer, got a boolean"),
        ({"name": "x", "count": 1.0}, "Tree.count: expected an integer, got a number"),
        ({"name": "x", "count": 2**63}, "Tree.count: the integer does not fit in 64 bits"),
        ({"name": "x", "good": 1}, "Tree.good: expected true or false, got a number"),
        ({"name": "x", "leaves": {}}, "Tree.leaves: expected a list, got an object"),
        ({"name": "x", "leaves": [{}]}, "Tree.leaves: Leaf.weight: is missing"),
        ({"name": "x", "by_name": []}, "Tree.by_name: expected an object, got a list"),
        ({"name": "x", "best": {"weight": 1e999}}, "Tree.best: Leaf.weight: the number is not finite"),
        ({"name": "x", "best": {"weight": "1"}}, "Tree.best: Leaf.weight: expected a number, got text"),
        ({"name": "x", "best": {"weight": 1, "colour": "green"}}, "Tree.best: Leaf.colour: 'green' is not a Colour"),
        ({"name": "x", "best": {"weight": 1, "colour": []}}, "Tree.best: Leaf.colour: a list is not a Colour"),
    ],
)
def test_a_wrong_message_is_refused_with_its_place(obj, message):
    with pytest.raises(WireError) as caught:
        decode(Tree, obj)
    assert str(caught.value) == message


@given(st.sampled_from(MESSAGES), headers)
def test_every_message_decodes_any_object_or_raises_a_wire_error(cls, obj):
    try:
        message = decode(cls, obj)
    except WireError:
        return
    assert decode(cls, json.loads(json.dumps(encode(message)))) == message


@given(st.sampled_from(MESSAGES), st.data())
@settings(max_examples=200)
def test_every_message_decodes_its_own_fields_filled_with_anything_or_raises(cls, data):
    obj = {name: data.draw(json_values) for name in cls.__dataclass_fields__}
    try:
        decode(cls, obj)
    except WireError:
        pass


@pytest.mark.parametrize("name", sorted(errors._TYPED))
def test_every_typed_error_travels_as_itself(name):
    cls = getattr(modal.exception, name)
    got = from_error_info(decode(common.ErrorInfo, encode(to_error_info(cls("The reason.")))))
    assert type(got) is cls
    assert str(got) == "The reason."


def test_other_errors_travel_without_their_text():
    class Special(modal.exception.NotFoundError):
        pass

    assert to_error_info(Special("x")).type == "NotFoundError"
    assert to_error_info(WireError("x")).type == "InvalidError"
    assert to_error_info(TooLarge("x")).type == "RequestSizeError"
    for exc in (KeyError("secret"), OSError("secret"), TimeoutError("secret"), modal.exception.ServerWarning("secret")):
        info = to_error_info(exc)
        assert info.type == "InternalFailure"
        assert "secret" not in info.message
    assert type(from_error_info(common.ErrorInfo("NewError", "x"))) is modal.exception.RemoteError
    assert type(from_error_info(common.ErrorInfo("SystemExit", "x"))) is modal.exception.RemoteError
