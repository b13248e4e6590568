"""Redis' clock, read seldom: deadlines and waiting times are measured on one clock, whatever the machines' own say."""

from __future__ import annotations

import time
from collections.abc import Callable

AGAIN_AFTER_S = 60.0


class RedisClock:
    """The time of Redis, from a cached difference to our monotonic clock."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        """`now_ms` asks Redis."""
        self._ask = now_ms
        self._asked_at = self._offset_ms = float("-inf")

    def now_ms(self) -> float:
        """Return ms since 1970 by Redis' clock; late by no more than one trip to it. Raises LineDown."""
        now = time.monotonic()
        if now - self._asked_at > AGAIN_AFTER_S:
            theirs = self._ask()
            now = self._asked_at = time.monotonic()
            self._offset_ms = theirs - now * 1000
        return now * 1000 + self._offset_ms
