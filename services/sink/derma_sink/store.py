"""The database's only writer: outcomes and findings in one transaction, durable when `commit` returns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from derma_common.errors import ResourceError
from derma_common.inference.card import ModelCard
from derma_common.schema import migrate
from derma_common.seqset import SeqSet
from derma_sink.outbox import OutboxRoom
from derma_sink.outcome import DELIVERED, Outcome
from derma_sink.outgoing import OutgoingRow

_INSERT_FRAME = (
    "INSERT INTO frames (run, camera, seq, outcome, reason, attempt, origin, width, height, captured_ns, wall_ns)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_FINDING = (
    "INSERT INTO findings (run, camera, seq, number, x1, y1, x2, y2, score, detector, classifier, probabilities,"
    " missing) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_TIMING = "INSERT OR REPLACE INTO timings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

TimingRow = tuple[str, str, int, int, int, int, int, int | None, int | None, int, int, int]


class StoreWriter:
    """Owns the database of a run."""

    def __init__(self, path: Path, run: str, room: OutboxRoom = OutboxRoom()) -> None:
        """Open or make the database. Raises ResourceError when it cannot be written or is of a newer derma."""
        self.run, self._path, self._room = run, path, room
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=10)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            migrate(self._db, path)
        except (sqlite3.Error, OSError) as error:
            raise ResourceError(f"the database {path} cannot be written: {error}") from error

    def begin_run(
        self,
        started_wall_ns: int,
        boot_id: str,
        version: str,
        cameras: Iterable[tuple[str, str, bool]],
        detector: ModelCard,
        classifier: ModelCard,
    ) -> None:
        """Record the run, its cameras (name, source, live) and the cards of its models, once. Raises ResourceError."""
        with self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?, ?, ?)",
                (self.run, started_wall_ns, boot_id, version, detector.id, classifier.id),
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO cameras VALUES (?, ?, ?, ?)",
                [(self.run, name, source, int(live)) for name, source, live in cameras],
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO models VALUES (?, ?, ?)",
                [(card.id, card.sha256, json.dumps(asdict(card))) for card in (detector, classifier)],
            )

    def durable(self, camera: str) -> tuple[SeqSet, int, dict[str, int]]:
        """Return the seqs of this run's camera that have their outcome, how many delivered, and drops by reason."""
        seqs = SeqSet()
        for (seq,) in self._db.execute(
            "SELECT seq FROM frames WHERE run = ? AND camera = ? ORDER BY seq", (self.run, camera)
        ):
            seqs.add(seq)
        delivered, dropped = 0, dict[str, int]()
        for outcome, reason, n in self._db.execute(
            "SELECT outcome, reason, count(*) FROM frames WHERE run = ? AND camera = ? GROUP BY outcome, reason",
            (self.run, camera),
        ):
            if outcome == DELIVERED:
                delivered += n
            else:
                dropped[reason] = n
        return seqs, delivered, dropped

    def findings(self) -> int:
        """Count this run's findings."""
        return int(self._db.execute("SELECT count(*) FROM findings WHERE run = ?", (self.run,)).fetchone()[0])

    def commit(
        self, outcomes: Sequence[Outcome], timings: Sequence[TimingRow], outgoing: Sequence[OutgoingRow] = ()
    ) -> None:
        """Write frames, findings, what is to leave, and the times of frames committed before, in one transaction.

        Raises ResourceError when the disk does not take them.
        """
        with self._transaction():
            self._db.executemany(_INSERT_FRAME, [self._frame_row(o) for o in outcomes])
            self._db.executemany(_INSERT_FINDING, [row for o in outcomes for row in self._finding_rows(o)])
            self._db.executemany(_INSERT_TIMING, timings)
            if outgoing:
                self._room.enqueue(self._db, self.run, outgoing)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit what the block writes, or nothing of it. Raises ResourceError when the disk does not take it."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise ResourceError(
                f"the database {self._path} takes no more: {error}; make room on its disk and start again (what was "
                "stored so far is safe)"
            ) from error
        finally:
            self._db.rollback()  # of a block that failed; after a commit there is nothing to roll back

    def _frame_row(self, o: Outcome) -> tuple[object, ...]:
        if o.detections is None:
            return (self.run, o.camera, o.seq, o.outcome, o.reason, 0, o.origin, 0, 0, 0, 0)
        frame = o.detections.frame
        return (
            self.run, o.camera, o.seq, o.outcome, o.reason, frame.attempt, o.origin, frame.handle.width,
            frame.handle.height, frame.captured_ns, frame.wall_ns,
        )  # fmt: skip

    def _finding_rows(self, o: Outcome) -> Iterable[tuple[object, ...]]:
        if o.detections is None:
            return
        for number, (lesion, model) in enumerate(zip(o.lesions, o.classifiers, strict=True)):
            probabilities = json.dumps({name: round(p, 6) for name, p in lesion.probabilities.items()})
            yield (
                self.run, o.camera, o.seq, number, *lesion.box, lesion.score, o.detections.model, model, probabilities,
                lesion.missing,
            )  # fmt: skip

    def close(self) -> None:
        """Close the database; the last connection folds the write-ahead log into it."""
        self._db.close()
