"""The forwarder as a stage of the loop: no messages, only time; and what it shows of itself."""

from __future__ import annotations

import time
from collections.abc import Iterable

from derma_common.contract import GIVEN_UP
from derma_common.gpu import Row
from derma_common.messages import Message
from derma_common.outbox import KINDS, Outbox
from derma_common.stage import BEAT_S
from derma_forwarder.forwarder import Forwarder

SHOW_EVERY_NS = 1_000_000_000
LEAVE_WITHIN_NS = 3_000_000_000


class ForwarderStage:
    """Turns the forwarder when it wants to; on leaving, sends what is left for a moment."""

    wait_s = BEAT_S

    def __init__(self, forwarder: Forwarder, outbox: Outbox, limit_bytes: int) -> None:
        self._forwarder, self._outbox, self._limit_bytes = forwarder, outbox, limit_bytes
        self._next_ns = self._shown_ns = 0
        self._leaving_ns: int | None = None
        self.rows: tuple[Row, ...] = ()  # of the metrics, replaced as a whole: read from another thread
        self.finished = False
        self._show()

    def handle(self, message: Message) -> Iterable[Message]:
        """Take no messages."""
        return ()

    def tick(self, now_ns: int) -> Iterable[Message]:
        """Do a turn when it is time."""
        if now_ns >= self._next_ns:
            wait_s = self._forwarder.turn()
            self._next_ns = time.monotonic_ns() + round(wait_s * 1e9)
            self.wait_s = min(BEAT_S, wait_s)
            if self._leaving_ns is not None and (wait_s > 0 or now_ns - self._leaving_ns > LEAVE_WITHIN_NS):
                self.finished = True  # all is sent, or the line is down, or it takes too long
        if now_ns - self._shown_ns >= SHOW_EVERY_NS or self.finished:
            self._shown_ns = now_ns
            self._show()
        return ()

    def leave(self) -> None:
        """Send what is left if that is quick."""
        self._leaving_ns = time.monotonic_ns()
        self._next_ns = 0

    def _show(self) -> None:
        tally, totals, given_up = self._forwarder.tally, self._outbox.totals(), self._outbox.given_up()
        oldest_ns = self._outbox.oldest_wall_ns()
        rows: list[Row] = [
            ("derma_cloud_connected", (), tally.connected),
            ("derma_cloud_failures_total", (), tally.failures),
            ("derma_opinions_total", (), tally.opinions),
            ("derma_outbox_limit_bytes", (), self._limit_bytes),
            ("derma_outbox_oldest_seconds", (), max(0, time.time_ns() - oldest_ns) / 1e9 if oldest_ns else 0.0),
        ]
        for kind in KINDS:
            rows += [
                ("derma_outbox_entries", (kind, "waiting"), totals[kind].rows),
                ("derma_outbox_entries", (kind, "quarantined"), totals[kind].quarantined),
                ("derma_outbox_backlog_bytes", (kind,), totals[kind].bytes),
                ("derma_outbox_sent_total", (kind,), tally.sent[kind]),
            ]
            rows += [
                ("derma_outbox_given_up_total", (kind, reason), given_up.get((kind, reason), 0)) for reason in GIVEN_UP
            ]
        self.rows = tuple(rows)
