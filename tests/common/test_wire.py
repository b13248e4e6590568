"""The message decoder: every message comes back as it was, everything else is InvalidMessage, cheaply."""

from __future__ import annotations

import tracemalloc
import typing
from dataclasses import fields, is_dataclass

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.builders import classifications, crops, detections, frame
from support.strategies import JSON_LIKE, MESSAGES, of_message

from derma_common import messages as m
from derma_common.errors import InvalidMessage
from derma_common.wire import MAX_BYTES, MAX_ITEMS, decode, encode

MEMORY_BOUND = 100 << 20  # bytes that the decoding of one message of MAX_BYTES may take at most


def decoded(data):
    """Return the message, or None for InvalidMessage; any other exception is the test's failure."""
    try:
        message = decode(data)
    except InvalidMessage as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400
        return None
    assert isinstance(message, m.TYPES)
    assert decode(encode(message)) == message
    return message


def as_map(message):
    return msgpack.unpackb(encode(message))


@pytest.mark.parametrize("cls", m.TYPES, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_every_message_comes_back_as_it_was(cls, data):
    message = data.draw(of_message(cls))
    assert decode(encode(message)) == message


def test_every_message_class_of_the_module_is_on_the_wire():
    declared = {c for c in vars(m).values() if isinstance(c, type) and is_dataclass(c)}
    reachable = set(m.TYPES)
    for cls in m.TYPES:
        for hint in typing.get_type_hints(cls).values():
            reachable |= {a for a in (hint, *typing.get_args(hint)) if isinstance(a, type) and is_dataclass(a)}
    assert declared == reachable


@given(st.binary(max_size=300))
@example(b"")
@example(b"\xc1")
@example(b"\x80")
@example(b"\x81\xc4\x00\x01")
def test_random_bytes_are_invalid(data):
    decoded(data)


@given(MESSAGES, st.data())
def test_a_mutated_message_is_invalid_or_another_message(message, data):
    raw = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(("set", "cut", "insert"))):
            case "set":
                raw[at] = data.draw(st.integers(0, 255))
            case "cut" if len(raw) > 2:
                del raw[at]
            case _:
                raw.insert(at, data.draw(st.integers(0, 255)))
    decoded(bytes(raw))


@given(JSON_LIKE)
def test_any_other_structure_is_invalid(body):
    assert decoded(msgpack.packb(body)) is None


@given(MESSAGES, JSON_LIKE, st.data())
def test_a_field_of_another_type_is_invalid_or_checked(message, value, data):
    body = as_map(message)
    body[data.draw(st.sampled_from(sorted(body)))] = value
    decoded(msgpack.packb(body))


@given(MESSAGES, st.data())
def test_a_message_without_a_required_field_says_which(message, data):
    required = [f.name for f in fields(message) if f.default is f.default_factory]
    body = as_map(message)
    if not required:
        return
    name = data.draw(st.sampled_from(required))
    del body[name]
    with pytest.raises(InvalidMessage, match=f"lacks {name}"):
        decode(msgpack.packb(body))


@given(MESSAGES, st.none() | st.integers(0, 9) | st.dictionaries(st.text(max_size=3), st.floats(), max_size=3))
def test_a_field_of_a_newer_version_is_ignored(message, value):
    assert decode(msgpack.packb(as_map(message) | {"added_later": value})) == message


def test_a_field_that_was_added_later_has_its_default():
    body = as_map(m.Ack("cam0", ((0, 1),), 2, {}, ((1, 0),)))
    del body["torn"]
    assert decode(msgpack.packb(body)) == m.Ack("cam0", ((0, 1),), 2, {})


@pytest.mark.parametrize("message", [frame(), classifications(frame()), m.Close("cam0", ((1, 1),), "poison")])
def test_a_message_from_before_there_were_traces_has_none(message):
    body = as_map(message)
    del body["trace"]
    assert decode(msgpack.packb(body)) == message
    assert message.trace == b""


@pytest.mark.parametrize("trace", [b"\0" * 25, b"\0" * 27, b"\0" * 65, "0" * 26, 5, None, [0] * 26])
def test_a_trace_context_that_is_none_is_invalid(trace):
    with pytest.raises(InvalidMessage):
        decode(msgpack.packb(as_map(frame()) | {"trace": trace}))


@pytest.mark.parametrize("name", ["Handle", "FoundLesion", "dict", "__class__", "", 5, None, ["Ask"]])
def test_an_unknown_type_is_invalid(name):
    with pytest.raises(InvalidMessage, match="unknown message type"):
        decode(msgpack.packb({"t": name, "camera": "cam0"}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_invalid(value):
    body = as_map(detections(frame()))
    body["scores"] = [value]
    with pytest.raises(InvalidMessage, match=r"Detections.scores must be a finite number"):
        decode(msgpack.packb(body))


@pytest.mark.parametrize("value", [True, 1.0, "1", None, 1 << 63, -(1 << 63)])
def test_a_seq_that_is_no_integer_of_the_wire_is_invalid(value):
    body = as_map(m.Torn("cam0", 1, 0, "detector"))
    body["seq"] = value
    with pytest.raises(InvalidMessage, match=r"Torn\.seq"):
        decode(msgpack.packb(body))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x81\xa1t\xc7\x00\x01", id="an empty extension"),
        pytest.param(b"\x81\xa1t\xd6\xff\x00\x00\x00\x00", id="a timestamp"),
        pytest.param(b"\x81\xa1t\xc6\xff\xff\xff\xff", id="binary of 4 GB announced"),
        pytest.param(b"\x81\xa1t\xdb\xff\xff\xff\xff", id="text of 4 GB announced"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="an array of 2^32 announced"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="a map of 2^32 announced"),
        pytest.param(b"\x91" * 500_000, id="nesting without end"),
        pytest.param(b"\x81\xa1t" + b"\x91" * 900 + b"\xc0", id="a type that is nested too deep to be shown"),
        pytest.param(b"\x81\xa1t" * 300_000, id="maps in maps without end"),
        pytest.param(b"\xdc\x10\x00" * 1000, id="large arrays in large arrays"),
        pytest.param(b"\xa1\xff", id="text that is no UTF-8"),
        pytest.param(b"\x82\xa1t\xa3Ask\xa1t\xa3Ask\xc0", id="something after the end"),
    ],
)
def test_a_hostile_structure_is_invalid(data):
    with pytest.raises(InvalidMessage):
        decode(data)


def test_an_oversize_message_is_not_even_parsed():
    with pytest.raises(InvalidMessage, match="the limit is"):
        decode(b"\xc0" * (MAX_BYTES + 1))


def test_more_items_than_allowed_are_invalid():
    body = as_map(crops(frame()))
    body["squares"] = [[0, 0, 1, 1]] * (MAX_ITEMS + 1)
    with pytest.raises(InvalidMessage):
        decode(msgpack.packb(body))


def full_of(item):
    """Return an array of arrays, as large as a message may be, whose innermost items are `item`."""
    inner = b"\xdc\x10\x00" + item * MAX_ITEMS
    return b"\xdc" + ((MAX_BYTES - 16) // len(inner)).to_bytes(2) + inner * ((MAX_BYTES - 16) // len(inner))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(full_of(b"\x90"), id="empty arrays"),
        pytest.param(full_of(b"\x80"), id="empty maps"),
        pytest.param(full_of(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), id="large integers"),
        pytest.param(full_of(b"\xa0"), id="empty texts"),
        pytest.param(full_of(b"\x81\xa1a\xc0"), id="small maps"),
        pytest.param(b"\xdc\x10\x00" * 1000 + b"\xc0" * 1_000_000, id="nested announcements"),
        pytest.param(b"\xde\x10\x00\xa1a" * 1000 + b"\xc0" * 1_000_000, id="nested maps"),
    ],
)
def test_the_memory_that_garbage_takes_is_bounded(data):
    assert len(data) <= MAX_BYTES
    tracemalloc.start()
    try:
        assert decoded(data) is None
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BOUND
    finally:
        tracemalloc.stop()


def with_field(message, **changes):
    return msgpack.packb(as_map(message) | changes)


NONSENSE = {
    "a range that runs backwards": with_field(m.Close("cam0", ((0, 1),), "busy"), ranges=[[5, 3]]),
    "a range below zero": with_field(m.Close("cam0", ((0, 1),), "busy"), ranges=[[-5, 3]]),
    "an ack below zero": with_field(m.Ack("cam0", ((0, 1),), 2, {}), ranges=[[-5, 3]]),
    "an ack that runs backwards": with_field(m.Ack("cam0", ((0, 1),), 2, {}), ranges=[[3, 2]]),
    "boxes without scores": with_field(detections(frame(), 2), scores=[0.5]),
    "a frame below zero": with_field(frame(), seq=-1),
    "a classification below zero": with_field(crops(frame()), first=-1),
    "a square beside the picture": with_field(crops(frame()), squares=[[100, 0, 110, 10]]),
    "a square of no size": with_field(crops(frame()), squares=[[5, 5, 5, 5]]),
    "a square far too large": with_field(crops(frame()), squares=[[-(10**9), -(10**9), 10**9, 10**9]]),
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE)
def test_a_message_that_makes_no_sense_is_invalid(data):
    with pytest.raises(InvalidMessage):
        decode(data)
