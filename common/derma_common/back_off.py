"""Pauses between attempts at something that is down: longer with every failure, never in step with others."""

from __future__ import annotations

import random


class BackOff:
    """One thing's failures in a row.

    Half of a pause is drawn ("equal jitter": Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015), so
    what was lost together does not come back together, and nobody tries again at once.
    """

    def __init__(self, first_s: float, longest_s: float, draw: random.Random | None = None) -> None:
        """The n-th pause is at most `first_s` · 2ⁿ⁻¹ and `longest_s`."""
        self._first_s, self._longest_s = first_s, longest_s
        self._draw = draw or random.Random()
        self.failures = 0

    def failed(self) -> float:
        """Count a failure; return how long to wait before the next attempt, s."""
        pause_s = min(self._longest_s, self._first_s * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return pause_s * self._draw.uniform(0.5, 1.0)

    def worked(self) -> None:
        """Begin anew."""
        self.failures = 0
