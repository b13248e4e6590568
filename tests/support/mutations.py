"""Messages that went wrong: good ones with bits flipped, cut, doubled, retyped, and things that were never one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgpack

from derma_common.wire import MAX_BYTES

_WRONG: tuple[Any, ...] = (
    None, True, False, -1, 2**62, -(2**63), 2**64 - 1, 0.5, float("nan"), float("inf"), "", "x" * 5000, "../../etc",
    "a\0b", b"", b"\xff" * 100, [], [[]], [None] * 300, {}, {"a": {"b": {}}}, {1: 2},
)  # fmt: skip
_LENGTHS = (b"\xdc\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff",
            b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xde\xff\xff")  # fmt: skip
_RARELY = 0.0005  # of all: what takes a megabyte


class Mutations:
    """Draws messages in parts, as ZeroMQ sends them; always the same ones for a seed."""

    def __init__(self, good: Sequence[bytes], seed: int) -> None:
        """`good` are the packed messages that are spoilt; some come as they are."""
        self._good = good
        self._random = random.Random(seed)
        self._kinds: tuple[Callable[[bytes], bytes], ...] = (
            self._flipped, self._cut, self._doubled, self._retyped, self._retyped, self._nested, self._longer,
            self._noise,
        )  # fmt: skip

    def __iter__(self) -> Iterator[list[bytes]]:
        """Yield without end."""
        draw = self._random
        while True:
            good = draw.choice(self._good)
            fate = draw.random()
            if fate < _RARELY:
                yield [self._large()]
            elif fate < 0.02:
                yield [draw.choice((good, b"", b"\xc0")) for _ in range(draw.choice((2, 3, 4, 50, 500)))]
            elif fate < 0.1:
                yield [good]
            else:
                yield [draw.choice(self._kinds)(good)]

    def _flipped(self, good: bytes) -> bytes:
        data = bytearray(good)
        for _ in range(self._random.randint(1, 6)):
            data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
        return bytes(data)

    def _cut(self, good: bytes) -> bytes:
        return good[: self._random.randrange(len(good))]

    def _doubled(self, good: bytes) -> bytes:
        begin, end = sorted(self._random.randrange(len(good)) for _ in range(2))
        return good[:end] + good[begin:]

    def _retyped(self, good: bytes) -> bytes:
        body = msgpack.unpackb(good)
        place = body
        while True:  # down to any value of the tree
            key = self._random.choice(list(place) if isinstance(place, dict) else range(len(place)))
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or self._random.random() < 0.3:
                break
            place = inner
        if isinstance(place, dict) and self._random.random() < 0.2:
            del place[key]
        else:
            place[key] = self._random.choice(_WRONG)
        return bytes(msgpack.packb(body))

    def _nested(self, good: bytes) -> bytes:
        depth = self._random.choice((10, 500, 1000, 20_000))
        return self._random.choice((b"\x91", b"\x81\xa1t")) * depth + good

    def _longer(self, good: bytes) -> bytes:
        at = self._random.randrange(len(good))
        return good[:at] + self._random.choice(_LENGTHS) + good[at:]

    def _noise(self, good: bytes) -> bytes:
        return self._random.randbytes(self._random.randint(0, 64))

    def _large(self) -> bytes:
        size = self._random.choice((MAX_BYTES - 5, MAX_BYTES, MAX_BYTES + 1, 3 * MAX_BYTES))
        return b"\xdd" + (size - 5).to_bytes(4, "big") + self._random.choice((b"\x80", b"\x90", b"\xc0")) * (size - 5)
