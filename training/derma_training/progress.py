"""One line on stderr that says how far a long job is; nothing when nobody watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

REDRAW_S = 0.2


class Progress:
    """Counts steps out of a total and redraws its line a few times a second, on a terminal only."""

    def __init__(
        self, what: str, total: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """stream: stderr if None."""
        self._what, self._total, self._stream, self._clock = what, total, stream or sys.stderr, clock
        self._done, self._drawn_at, self._started = 0, float("-inf"), clock()

    def step(self, n: int = 1, note: str = "") -> None:
        """Count n more; `note` is shown behind the counts."""
        self._done += n
        now = self._clock()
        if not self._stream.isatty() or (now - self._drawn_at < REDRAW_S and self._done < self._total):
            return
        self._drawn_at = now
        rate = self._done / max(now - self._started, 1e-9)
        left_s = (self._total - self._done) / max(rate, 1e-9)
        line = f"{self._what} {self._done}/{self._total}  {rate:.1f}/s  {left_s:.0f} s left  {note}"
        self._stream.write(f"\r\x1b[K{line}")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the line."""
        if self._stream.isatty() and self._done:
            self._stream.write("\n")
