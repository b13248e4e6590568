"""What waits to leave the machine: rows that the sink wrote with the findings, taken out by the forwarder when sent.

A row's id is never used again, so a stream's entries in the order of ids are each accepted once. A row that is to be
tried again after its turn gets a new id.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from derma_common.errors import ResourceError
from derma_common.schema import migrate

FINDINGS, PICTURE = "findings", "picture"
KINDS = (FINDINGS, PICTURE)
_COLUMNS = "id, kind, priority, run, camera, seq, number, queued_wall_ns, bytes, attempts, error"


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row of the outbox, without its picture."""

    id: int
    kind: str
    priority: int
    run: str
    camera: str
    seq: int
    number: int  # of the finding, −1 for all of a frame
    queued_wall_ns: int
    bytes: int
    attempts: int
    error: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What waits of one kind, and what was set aside."""

    rows: int
    bytes: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class OpinionRow:
    """A second opinion as it is stored, beside what the edge said."""

    run: str
    camera: str
    seq: int
    number: int
    models: tuple[str, ...]
    method: str
    probabilities: dict[str, float]
    worker: str
    wall_ns: int
    service_ns: int


class Outbox:
    """The outbox of one database."""

    def __init__(self, path: Path) -> None:
        """Open it. Raises ResourceError when there is no database, or none that can be written."""
        if not path.exists():
            raise ResourceError(f"there is no database {path}: nothing was examined yet (derma up SOURCE)")
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
            self._db.execute("PRAGMA synchronous = FULL")
            migrate(self._db, path)
        except sqlite3.Error as error:
            raise ResourceError(f"the database {path} cannot be written: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def first(self, count: int) -> list[Waiting]:
        """Return what should leave next, by priority and then by age."""
        return list(heapq.merge(*(self._of(kind, False, count) for kind in KINDS), key=lambda w: (w.priority, w.id)))[
            :count
        ]

    def quarantined(self) -> list[Waiting]:
        """Return what was set aside."""
        return [row for kind in KINDS for row in self._of(kind, True, -1)]

    def _of(self, kind: str, quarantined: bool, count: int) -> list[Waiting]:
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM outbox WHERE kind = ? AND quarantined = ? ORDER BY priority, id LIMIT ?",
            (kind, int(quarantined), count),
        )
        return [Waiting(*row) for row in rows]

    def picture(self, row: Waiting) -> bytes:
        """Return a row's picture; empty when it has gone meanwhile."""
        found = self._db.execute("SELECT picture FROM outbox WHERE id = ?", (row.id,)).fetchone()
        return bytes(found[0]) if found and found[0] is not None else b""

    def sent(self, rows: Iterable[Waiting]) -> None:
        """Take out what has arrived."""
        with self._transaction() as db:
            db.executemany("DELETE FROM outbox WHERE id = ?", [(row.id,) for row in rows])

    def refused(self, row: Waiting, why: str, attempts: int) -> bool:
        """Note that a row alone was refused; after so many `attempts` it is set aside. Say whether it is now."""
        aside = row.attempts + 1 >= attempts
        with self._transaction() as db:
            _queue_again(db, row.id, row.attempts + 1, aside, why[:500])
        return aside

    def expire(self, before_wall_ns: int) -> int:
        """Give up what has waited since before a time; return how many rows."""
        with self._transaction() as db:
            old = db.execute("SELECT id, kind FROM outbox WHERE queued_wall_ns < ?", (before_wall_ns,)).fetchall()
            _give_up(db, old, "too_old")
        return len(old)

    def retry(self, ids: Sequence[int] | None) -> int:
        """Put what was set aside (these ids, or all) back in line, under new ids; return how many rows."""
        with self._transaction() as db:
            chosen = [row.id for row in self.quarantined() if ids is None or row.id in ids]
            for one in chosen:
                _queue_again(db, one, 0, False, "")
        return len(chosen)

    def drop(self, ids: Sequence[int] | None, kind: str | None = None) -> int:
        """Give up these ids, or all rows of a kind or of any kind; return how many rows."""
        with self._transaction() as db:
            rows = db.execute("SELECT id, kind FROM outbox WHERE ? IS NULL OR kind = ?", (kind, kind)).fetchall()
            chosen = [row for row in rows if ids is None or row[0] in ids]
            _give_up(db, chosen, "by_hand")
        return len(chosen)

    def totals(self) -> dict[str, Totals]:
        """Return what waits, by kind."""
        found = dict.fromkeys(KINDS, Totals(0, 0, 0))
        for kind, quarantined, rows, size in self._db.execute("SELECT * FROM outbox_totals"):
            known = found[kind]
            found[kind] = (
                Totals(known.rows, known.bytes, rows) if quarantined else Totals(rows, size, known.quarantined)
            )
        return found

    def given_up(self) -> dict[tuple[str, str], int]:
        """Return how many rows were given up since the database was made, by kind and reason."""
        rows = self._db.execute("SELECT kind, reason, rows FROM outbox_given_up")
        return {(str(kind), str(reason)): int(n) for kind, reason, n in rows}

    def oldest_wall_ns(self) -> int | None:
        """Return when the row that has waited longest was queued; None when nothing waits."""
        row = self._db.execute("SELECT queued_wall_ns FROM outbox WHERE quarantined = 0 ORDER BY id LIMIT 1").fetchone()
        return int(row[0]) if row else None

    # -- the line -----------------------------------------------------------------------------------------------

    @property
    def epoch_ms(self) -> int:
        """The first part of every id that this outbox gives to a stream's entry; the row's id is the second."""
        return int(self._db.execute("SELECT epoch_ms FROM line").fetchone()[0])

    @property
    def newest_id(self) -> int:
        """The highest id that was ever given to a row."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
        return int(row[0]) if row else 0

    def begin_epoch(self, epoch_ms: int) -> None:
        """Give all further entries ids of a new epoch."""
        with self._transaction() as db:
            db.execute("UPDATE line SET epoch_ms = ?", (epoch_ms,))

    @property
    def opinions_after(self) -> str:
        """The id of the last opinion that was stored."""
        return str(self._db.execute("SELECT opinions_after FROM line").fetchone()[0])

    def add_opinions(self, opinions: Iterable[OpinionRow], after: str, wall_ns: int) -> None:
        """Store opinions, each once, and how far the stream was read, together."""
        with self._transaction() as db:
            db.executemany(
                "INSERT OR IGNORE INTO opinions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        o.run, o.camera, o.seq, o.number, json.dumps(o.models), o.method,
                        json.dumps({name: round(p, 6) for name, p in o.probabilities.items()}), o.worker, o.wall_ns,
                        o.service_ns, wall_ns,
                    )
                    for o in opinions
                ],
            )  # fmt: skip
            db.execute("UPDATE line SET opinions_after = ?", (after,))

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _queue_again(db: sqlite3.Connection, row_id: int, attempts: int, quarantined: bool, error: str) -> None:
    """Give a row a new id: its stream has gone on, and takes no lower one."""
    row = db.execute(
        "SELECT kind, priority, run, camera, seq, number, queued_wall_ns, picture, bytes FROM outbox WHERE id = ?",
        (row_id,),
    ).fetchone()
    if row is None:  # somebody dropped it meanwhile
        return
    db.execute("DELETE FROM outbox WHERE id = ?", (row_id,))
    db.execute(
        "INSERT INTO outbox (kind, priority, run, camera, seq, number, queued_wall_ns, picture, bytes, attempts,"
        " quarantined, error) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*row, attempts, int(quarantined), error),
    )


def _give_up(db: sqlite3.Connection, rows: Sequence[tuple[int, str]], reason: str) -> None:
    db.executemany("DELETE FROM outbox WHERE id = ?", [(row[0],) for row in rows])
    count_given_up(db, [kind for _, kind in rows], reason)


def count_given_up(db: sqlite3.Connection, kinds: Sequence[str], reason: str) -> None:
    """Count rows that were given up, within the caller's transaction."""
    for kind in set(kinds):
        db.execute(
            "INSERT INTO outbox_given_up VALUES (?, ?, ?)"
            " ON CONFLICT (kind, reason) DO UPDATE SET rows = rows + excluded.rows",
            (kind, reason, kinds.count(kind)),
        )
