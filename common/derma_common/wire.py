"""Messages to bytes and back: MessagePack maps, checked against the dataclasses before anyone sees them.

What arrives may be anything. The size is checked first, MessagePack's own limits second, then every
field's type, range and length; the result is a message or InvalidMessage with one line that says why.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import msgpack

from derma_common.errors import InvalidMessage
from derma_common.messages import TYPES, Message

MAX_BYTES = 1 << 20
MAX_ITEMS = 4096  # of one array or map
MAX_TEXT = 4096  # characters of one string
MAX_INT = (1 << 63) - 1
TYPE_KEY = "t"

Check = Callable[[Any, str], Any]


def encode(message: Message) -> bytes:
    """Return the message as MessagePack."""
    body = _plain(message)
    body[TYPE_KEY] = type(message).__name__
    return bytes(msgpack.packb(body, use_bin_type=True))


def decode(data: bytes | memoryview) -> Message:
    """Return the message in `data`. Raises InvalidMessage for anything else, in bounded time and memory."""
    if len(data) > MAX_BYTES:
        raise InvalidMessage(f"message of {len(data)} bytes, the limit is {MAX_BYTES}")
    try:
        body = msgpack.unpackb(
            data, raw=False, use_list=True, strict_map_key=True, max_ext_len=0, max_bin_len=0,
            max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS, max_str_len=MAX_TEXT * 4,
        )  # fmt: skip
    except Exception as error:  # msgpack raises ValueError, TypeError, UnicodeDecodeError and its own
        raise InvalidMessage(f"no MessagePack: {type(error).__name__}: {str(error)[:120]}") from error
    if not isinstance(body, dict):
        raise InvalidMessage(f"a message is a map, this is {type(body).__name__}")
    name = body.pop(TYPE_KEY, None)
    check = _BY_NAME.get(name) if isinstance(name, str) else None
    if check is None:
        raise InvalidMessage(f"unknown message type {str(name)[:40]!r}")
    return typing.cast(Message, check(body, str(name)))


def _plain(value: Any) -> Any:
    """Return a dataclass as nested dicts; leave tuples, dicts and scalars to MessagePack."""
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value


def _check_int(value: Any, where: str) -> int:
    if type(value) is not int or not -MAX_INT <= value <= MAX_INT:
        raise InvalidMessage(f"{where} must be a 63-bit integer")
    return value


def _check_float(value: Any, where: str) -> float:
    if type(value) not in (float, int) or not math.isfinite(value):
        raise InvalidMessage(f"{where} must be a finite number")
    return float(value)


def _check_str(value: Any, where: str) -> str:
    if type(value) is not str or len(value) > MAX_TEXT:
        raise InvalidMessage(f"{where} must be text of at most {MAX_TEXT} characters")
    return value


def _check_many(item: Check) -> Check:
    def check(value: Any, where: str) -> tuple[Any, ...]:
        if type(value) is not list:
            raise InvalidMessage(f"{where} must be an array")
        return tuple(item(v, where) for v in value)

    return check


def _check_row(items: tuple[Check, ...]) -> Check:
    def check(value: Any, where: str) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(items):
            raise InvalidMessage(f"{where} must be an array of {len(items)}")
        return tuple(item(v, where) for item, v in zip(items, value, strict=True))

    return check


def _check_map(item: Check) -> Check:
    def check(value: Any, where: str) -> dict[str, Any]:
        if type(value) is not dict:
            raise InvalidMessage(f"{where} must be a map")
        return {_check_str(k, where): item(v, where) for k, v in value.items()}

    return check


def _check_dataclass(cls: type) -> Check:
    hints = typing.get_type_hints(cls)
    checks = {f.name: _check_for(hints[f.name]) for f in fields(cls)}
    required = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}

    def check(value: Any, where: str) -> Any:
        if type(value) is not dict:
            raise InvalidMessage(f"{where} must be a map")
        absent = required - value.keys()
        if absent:
            raise InvalidMessage(f"{where} lacks {min(absent)}")
        # a field of a newer version is ignored; what is known is checked
        known = {name: item(value[name], f"{where}.{name}") for name, item in checks.items() if name in value}
        return cls(**known)

    return check


_SCALARS: dict[Any, Check] = {int: _check_int, float: _check_float, str: _check_str}


def _check_for(hint: Any) -> Check:
    if hint in _SCALARS:
        return _SCALARS[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _check_many(_check_for(arguments[0]))
    if origin is tuple:
        return _check_row(tuple(_check_for(a) for a in arguments))
    if origin is dict:
        return _check_map(_check_for(arguments[1]))
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) and is_dataclass(hint):
        return _check_dataclass(hint)
    raise TypeError(f"the wire has no form for {hint}")


_BY_NAME: dict[str, Check] = {cls.__name__: _check_dataclass(cls) for cls in TYPES}
