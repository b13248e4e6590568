"""Messages to bytes and back: MessagePack maps, checked against the dataclasses before anyone sees them.

What arrives may be anything. The size is checked first, MessagePack's own limits second, then every
field's type, range and length; the result is a message or InvalidMessage with one line that says why.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import MISSING, fields, is_dataclass
from operator import attrgetter
from typing import Any

import msgpack

from derma_common.errors import InvalidMessage
from derma_common.messages import TYPES, Message

MAX_BYTES = 1 << 20
MAX_ITEMS = 4096  # of one array or map
MAX_TEXT = 4096  # characters of one string
MAX_BINARY = 64  # bytes of one field; pixels never travel on one machine
MAX_INT = (1 << 62) - 1  # so the difference of two times still fits into 64 bits, in the database too
TYPE_KEY = "t"

Check = Callable[[Any], Any]  # the value, checked; raises InvalidMessage
Read = Callable[[Any], tuple[Any, ...]]


class Codec:
    """Some dataclasses as bytes. What is not one of them, within the limits, does not pass."""

    def __init__(self, types: Iterable[type], max_bytes: int, max_binary: int) -> None:
        """`max_bytes` bounds a whole message, `max_binary` each of its binary fields."""
        self._max_bytes, self._max_binary = max_bytes, max_binary
        self._by_name: dict[str, Check] = {
            cls.__name__: _dataclass_check(cls, cls.__name__, max_binary) for cls in types
        }

    def encode(self, message: Any) -> bytes:
        """Return the message as MessagePack."""
        body = _as_map(message)
        body[TYPE_KEY] = type(message).__name__
        return bytes(msgpack.packb(body, default=_as_map, use_bin_type=True))

    def decode(self, data: bytes | memoryview) -> Any:
        """Return the message in `data`. Raises InvalidMessage for anything else, in bounded time and memory."""
        if len(data) > self._max_bytes:
            raise InvalidMessage(f"message of {len(data)} bytes, the limit is {self._max_bytes}")
        try:
            body = msgpack.unpackb(
                data, raw=False, use_list=True, strict_map_key=True, max_ext_len=0, max_bin_len=self._max_binary,
                max_array_len=MAX_ITEMS, max_map_len=MAX_ITEMS, max_str_len=MAX_TEXT * 4,
            )  # fmt: skip
        except Exception as error:  # msgpack raises ValueError, TypeError, UnicodeDecodeError and its own
            raise InvalidMessage(f"no MessagePack: {type(error).__name__}: {str(error)[:120]}") from error
        if not isinstance(body, dict):
            raise InvalidMessage(f"a message is a map, this is {type(body).__name__}")
        name = body.pop(TYPE_KEY, None)
        if not isinstance(name, str):  # not shown: it may be nested too deep for that
            raise InvalidMessage(f"unknown message type: {type(name).__name__} instead of its name")
        check = self._by_name.get(name)
        if check is None:
            raise InvalidMessage(f"unknown message type {name[:40]!r}")
        return check(body)


def encode(message: Message) -> bytes:
    """Return a message between processes as MessagePack."""
    return _MESSAGES.encode(message)


def decode(data: bytes | memoryview) -> Message:
    """Return the message between processes in `data`. Raises InvalidMessage."""
    return typing.cast(Message, _MESSAGES.decode(data))


def _as_map(value: Any) -> dict[str, Any]:
    """Return a dataclass of the wire as a map, one level deep: MessagePack asks again for what is within."""
    if type(value) not in _READ:
        raise TypeError(f"the wire has no form for {type(value).__name__}")
    names, read = _READ[type(value)]
    return dict(zip(names, read(value), strict=True))


# What follows builds one check for each type when this module is loaded; every check knows its place in the message.


def _int_check(where: str) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not -MAX_INT <= value <= MAX_INT:
            raise InvalidMessage(f"{where} must be an integer of at most 62 bits")
        return value

    return check


def _float_check(where: str) -> Check:
    def check(value: Any) -> float:
        if type(value) not in (float, int) or not math.isfinite(value):
            raise InvalidMessage(f"{where} must be a finite number")
        return float(value)

    return check


def _str_check(where: str) -> Check:
    def check(value: Any) -> str:
        if type(value) is not str or len(value) > MAX_TEXT:
            raise InvalidMessage(f"{where} must be text of at most {MAX_TEXT} characters")
        return value

    return check


def _bytes_check(where: str, most: int) -> Check:
    def check(value: Any) -> bytes:
        if type(value) is not bytes or len(value) > most:
            raise InvalidMessage(f"{where} must be at most {most} bytes")
        return value

    return check


def _many_check(item: Check, where: str) -> Check:
    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise InvalidMessage(f"{where} must be an array")
        return tuple([item(v) for v in value])

    return check


def _row_check(items: tuple[Check, ...], where: str) -> Check:
    def check(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(items):
            raise InvalidMessage(f"{where} must be an array of {len(items)}")
        return tuple([item(v) for item, v in zip(items, value, strict=True)])

    return check


def _map_check(item: Check, where: str) -> Check:
    key = _str_check(where)

    def check(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise InvalidMessage(f"{where} must be a map")
        return {key(k): item(v) for k, v in value.items()}

    return check


def _dataclass_check(cls: type, where: str, max_binary: int) -> Check:
    hints = typing.get_type_hints(cls)
    names = tuple(f.name for f in fields(cls))
    _READ[cls] = (names, attrgetter(*names) if len(names) > 1 else _single(names[0]))
    plan = tuple((name, hints[name] is int, _check_for(hints[name], f"{where}.{name}", max_binary)) for name in names)
    required = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}

    def check(value: Any) -> Any:
        if type(value) is not dict:
            raise InvalidMessage(f"{where} must be a map")
        if not required <= value.keys():
            raise InvalidMessage(f"{where} lacks {min(required - value.keys())}")
        known = {}
        for name, is_int, item in plan:  # what a newer version added is ignored
            if name in value:
                v = value[name]
                # most fields are good integers: no call for those
                known[name] = v if is_int and type(v) is int and -MAX_INT <= v <= MAX_INT else item(v)
        try:
            return cls(**known)
        except ValueError as error:
            raise InvalidMessage(f"{where}: {error}") from error

    return check


def _single(name: str) -> Read:
    return lambda value: (getattr(value, name),)


def _check_for(hint: Any, where: str, max_binary: int) -> Check:
    if hint is bytes:
        return _bytes_check(where, max_binary)
    if hint in _SCALARS:
        return _SCALARS[hint](where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _many_check(_check_for(arguments[0], where, max_binary), where)
    if origin is tuple:
        return _row_check(tuple(_check_for(a, where, max_binary) for a in arguments), where)
    if origin is dict:
        return _map_check(_check_for(arguments[1], where, max_binary), where)
    if isinstance(hint, type) and not isinstance(hint, types.GenericAlias) and is_dataclass(hint):
        return _dataclass_check(hint, where, max_binary)
    raise TypeError(f"the wire has no form for {hint}")


_SCALARS: dict[Any, Callable[[str], Check]] = {int: _int_check, float: _float_check, str: _str_check}
_READ: dict[type, tuple[tuple[str, ...], Read]] = {}  # type → its fields and how to read them all
_MESSAGES = Codec(TYPES, MAX_BYTES, MAX_BINARY)
