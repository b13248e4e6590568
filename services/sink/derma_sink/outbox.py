"""The sink's end of the outbox: rows go in with the findings' own transaction, pictures within their bounds."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from derma_common.cloud.entries import PRIORITIES
from derma_common.outbox import PICTURE, count_given_up
from derma_sink.outgoing import OutgoingRow

_INSERT = (
    "INSERT OR IGNORE INTO outbox (kind, priority, run, camera, seq, number, queued_wall_ns, picture, bytes)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class OutboxRoom:
    """How many bytes of pictures may wait, and who goes when there is no room.

    Findings always have room: a row of theirs is small beside the findings that it names, which stay anyway.
    """

    limit_bytes: int = 1 << 31
    when_full: str = "discard_oldest"  # of the least urgent pictures, none more urgent than the new; or refuse_new

    def enqueue(self, db: sqlite3.Connection, run: str, rows: Sequence[OutgoingRow]) -> None:
        """Add rows, within the caller's transaction."""
        now_ns = time.time_ns()
        refused = 0
        for row in rows:
            size = len(row.picture or b"")
            if size and not self._make_room(db, size, row.priority):
                refused += 1
                continue
            db.execute(
                _INSERT, (row.kind, row.priority, run, row.camera, row.seq, row.number, now_ns, row.picture, size)
            )
        if refused:
            count_given_up(db, [PICTURE] * refused, "full")

    def _make_room(self, db: sqlite3.Connection, size: int, priority: int) -> bool:
        (waiting,) = db.execute("SELECT sum(bytes) FROM outbox_totals").fetchone()
        lacking = waiting + size - self.limit_bytes
        if lacking <= 0:
            return True
        if self.when_full != "discard_oldest" or size > self.limit_bytes:
            return False
        victims = []
        for row_id, size_of_it in self._least_urgent(db, priority):
            victims.append(row_id)
            lacking -= size_of_it
            if lacking <= 0:
                break
        else:
            return False
        db.executemany("DELETE FROM outbox WHERE id = ?", [(v,) for v in victims])
        count_given_up(db, [PICTURE] * len(victims), "full")
        return True

    @staticmethod
    def _least_urgent(db: sqlite3.Connection, priority: int) -> Iterator[tuple[int, int]]:
        """Yield id and bytes of pictures no more urgent than `priority`, the least urgent and oldest first."""
        for of in range(max(PRIORITIES), priority - 1, -1):
            for quarantined in (1, 0):
                yield from db.execute(
                    "SELECT id, bytes FROM outbox WHERE kind = ? AND quarantined = ? AND priority = ? ORDER BY id",
                    (PICTURE, quarantined, of),
                )
