"""Hypothesis strategies for messages, derived from the type hints of their dataclasses."""

from __future__ import annotations

import typing
from dataclasses import fields, is_dataclass
from typing import Any

from hypothesis import strategies as st

from derma_common import messages as m
from derma_common.wire import MAX_INT

_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
_SEQS = st.integers(0, MAX_INT)
_TRACES = st.just(b"") | st.binary(min_size=m.TRACE_BYTES, max_size=m.TRACE_BYTES)  # the only bytes that travel


def _ranges() -> st.SearchStrategy[tuple[m.Range, ...]]:
    pairs = st.tuples(_SEQS, _SEQS).map(lambda pair: (min(pair), max(pair)))
    return st.lists(pairs, max_size=4).map(tuple)


@st.composite
def _squares_inside(draw: st.DrawFn, handle: m.Handle) -> m.Square:
    x, y = draw(st.integers(0, handle.width - 1)), draw(st.integers(0, handle.height - 1))
    side = draw(st.integers(1, max(handle.width, handle.height)))
    return (x - side // 2, y - side // 2, x - side // 2 + side, y - side // 2 + side)


def of_hint(hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values that a type hint of the wire admits."""
    scalars = {int: st.integers(-MAX_INT, MAX_INT), float: _FLOATS, str: _TEXT, bytes: _TRACES}
    if hint in scalars:
        return scalars[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(of_hint(arguments[0]), max_size=4).map(tuple)
    if origin is tuple:
        return st.tuples(*(of_hint(a) for a in arguments))
    if origin is dict:
        return st.dictionaries(_TEXT, of_hint(arguments[1]), max_size=4)
    assert is_dataclass(hint)
    return of_message(typing.cast(type, hint))


@st.composite
def of_message(draw: st.DrawFn, cls: type) -> Any:
    """Draw an instance of a message class that also makes sense: seqs count from 0, ranges ascend, rows agree."""
    hints = typing.get_type_hints(cls)
    values = {f.name: draw(of_hint(hints[f.name])) for f in fields(cls)}
    for name in {"seq", "attempt", "first", "epoch", "slot", "generation"} & values.keys():
        values[name] = draw(_SEQS)
    if cls is m.Handle:
        values |= {"height": draw(st.integers(1, 9999)), "width": draw(st.integers(1, 9999))}
    if "ranges" in values:
        values["ranges"] = draw(_ranges())
    if cls is m.Detections:
        values["scores"] = tuple(draw(_FLOATS) for _ in values["boxes"])
    if cls is m.Crops:
        values["squares"] = tuple(draw(st.lists(_squares_inside(values["frame"].handle), max_size=4)))
    return cls(**values)


MESSAGES: st.SearchStrategy[m.Message] = st.one_of([of_message(cls) for cls in m.TYPES])
JSON_LIKE: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | _TEXT | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_TEXT, inner, max_size=5),
    max_leaves=20,
)
