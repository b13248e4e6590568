"""Entries that nobody can work on: moved aside, counted, and told of, but not so often that garbage fills a disk."""

from __future__ import annotations

import logging
import time

from derma_common.cloud.streams import Delivery, Line
from derma_common.workers.metrics import WorkerMetrics

log = logging.getLogger(__name__)
SAY_EVERY_S = 1.0


class DeadLetters:
    """The way to the stream of dead letters."""

    def __init__(self, line: Line, group: str, metrics: WorkerMetrics) -> None:
        """`group` is "" for a reader without one."""
        self._line, self._group, self._metrics = line, group, metrics
        self._said_at, self._unsaid = float("-inf"), 0

    def bury(self, delivery: Delivery, outcome: str, reason: str) -> None:
        """Move an entry; `outcome` is "invalid" or "poison". Raises LineDown."""
        self._line.bury(self._group, delivery, reason)
        self._metrics.count(outcome)
        now = time.monotonic()
        if now - self._said_at < SAY_EVERY_S:
            self._unsaid += 1
            return
        more = f" (and {self._unsaid} more since)" if self._unsaid else ""
        self._said_at, self._unsaid = now, 0
        log.warning("dead letter: entry %s of %s: %s%s", delivery.id, delivery.key, reason, more)
