"""The wall clock, which pictures are dated by and which people and NTP may set while a run goes on.

Nothing is timed by it. It is compared with the monotonic clock at every reading, so that a step is noticed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

STEP_NS = 1_000_000_000  # between two pictures: a clock that is slewed (0.5 ms a second) needs half an hour for it
log = logging.getLogger(__name__)


class WallClock:
    """Dates moments of the monotonic clock."""

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall_ns, self._monotonic_ns = wall_ns, monotonic_ns
        self._offset_ns = self._offset()

    def _offset(self) -> int:
        return self._wall_ns() - self._monotonic_ns()

    def at(self, moment_ns: int) -> int:
        """Return ns since 1970 of a moment of the monotonic clock, as the wall clock stands now; log a step of it."""
        before, self._offset_ns = self._offset_ns, self._offset()
        step_ns = self._offset_ns - before
        if abs(step_ns) >= STEP_NS:
            log.warning(
                "the wall clock went %s by %.1f s (it was set, or the machine slept): pictures before this are dated "
                "by the old one; durations and order use another clock",
                "back" if step_ns < 0 else "ahead",
                abs(step_ns) / 1e9,
            )
        return moment_ns + self._offset_ns
