"""The database as two processes see it: the sink writes it, everybody else reads it read-only.

SQLite in WAL mode. The schema is numbered in `user_version`; a newer one than this derma knows is refused.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from derma_common.errors import ResourceError

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    started_wall_ns INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    derma_version TEXT NOT NULL,
    detector TEXT NOT NULL,
    classifier TEXT NOT NULL
) STRICT;
CREATE TABLE cameras (
    run TEXT NOT NULL REFERENCES runs (id),
    name TEXT NOT NULL,
    source TEXT NOT NULL,
    live INTEGER NOT NULL,
    PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE models (
    id TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL,
    card TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE frames (
    run TEXT NOT NULL,
    camera TEXT NOT NULL,
    seq INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('delivered', 'dropped')),
    reason TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    origin TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    captured_ns INTEGER NOT NULL,
    wall_ns INTEGER NOT NULL,
    PRIMARY KEY (run, camera, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE findings (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    camera TEXT NOT NULL,
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    x1 REAL NOT NULL, y1 REAL NOT NULL, x2 REAL NOT NULL, y2 REAL NOT NULL,
    score REAL NOT NULL,
    detector TEXT NOT NULL,
    classifier TEXT NOT NULL,
    probabilities TEXT NOT NULL,
    missing TEXT NOT NULL,
    UNIQUE (run, camera, seq, number)
) STRICT;
CREATE TABLE timings (
    run TEXT NOT NULL,
    camera TEXT NOT NULL,
    seq INTEGER NOT NULL,
    capture_wait_ns INTEGER NOT NULL, capture_service_ns INTEGER NOT NULL,
    detector_wait_ns INTEGER NOT NULL, detector_service_ns INTEGER NOT NULL,
    classifier_wait_ns INTEGER, classifier_service_ns INTEGER,
    sink_wait_ns INTEGER NOT NULL, sink_service_ns INTEGER NOT NULL,
    end_to_end_ns INTEGER NOT NULL,
    PRIMARY KEY (run, camera, seq)
) STRICT, WITHOUT ROWID;
"""
STAGES = ("capture", "detector", "classifier", "sink")


@dataclass(frozen=True, slots=True)
class StoredFinding:
    """One row of `derma findings`."""

    run: str
    camera: str
    source: str
    origin: str
    seq: int
    number: int
    box: tuple[float, float, float, float]
    score: float
    probabilities: dict[str, float]
    missing: str
    detector: str
    classifier: str

    def as_json(self) -> dict[str, Any]:
        """Return the line that `derma findings --json` prints."""
        return {
            "run": self.run, "camera": self.camera, "source": self.source, "file": self.origin, "seq": self.seq,
            "number": self.number, "box": [round(v, 2) for v in self.box], "score": round(self.score, 4),
            "probabilities": self.probabilities, "missing": self.missing,
            "models": {"detector": self.detector, "classifier": self.classifier},
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcomes:
    """An independent count of a run's rows."""

    delivered: int
    dropped: dict[str, int]
    findings: int
    latency_ms: dict[str, Any] = field(default_factory=dict)


class StoreReader:
    """Read-only view of the database."""

    def __init__(self, path: Path) -> None:
        """Open `path`. Raises ResourceError when there is no database of a known version."""
        if not path.exists():
            raise ResourceError(f"there is no database {path}: nothing was examined yet (derma up SOURCE)")
        try:
            self._db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise ResourceError(f"{path} is not a derma database: {error}") from error
        if version != SCHEMA_VERSION:
            self._db.close()
            raise ResourceError(f"{path} has schema version {version}, this derma knows {SCHEMA_VERSION}")

    def latest_run(self) -> str | None:
        """Return the id of the run that started last."""
        row = self._db.execute("SELECT id FROM runs ORDER BY started_wall_ns DESC LIMIT 1").fetchone()
        return str(row[0]) if row else None

    def cameras(self, run: str) -> dict[str, tuple[str, bool]]:
        """Return camera → (source, is live) of a run."""
        rows = self._db.execute("SELECT name, source, live FROM cameras WHERE run = ?", (run,))
        return {str(name): (str(source), bool(live)) for name, source, live in rows}

    def findings(self, run: str, camera: str | None = None) -> Iterator[StoredFinding]:
        """Yield the findings of a run, by camera, picture and score."""
        rows = self._db.execute(
            "SELECT f.camera, c.source, r.origin, f.seq, f.number, f.x1, f.y1, f.x2, f.y2, f.score,"
            " f.probabilities, f.missing, f.detector, f.classifier FROM findings f"
            " JOIN frames r USING (run, camera, seq) JOIN cameras c ON c.run = f.run AND c.name = f.camera"
            " WHERE f.run = ? AND (? IS NULL OR f.camera = ?) ORDER BY f.camera, f.seq, f.number",
            (run, camera, camera),
        )
        for (
            name,
            source,
            origin,
            seq,
            number,
            x1,
            y1,
            x2,
            y2,
            score,
            text,
            missing,
            detector,
            classifier,
        ) in rows:
            yield StoredFinding(
                run, name, source, origin, seq, number, (x1, y1, x2, y2), score, json.loads(text), missing, detector,
                classifier,
            )  # fmt: skip

    def frame_files(self, run: str, camera: str) -> dict[int, str]:
        """Return seq → file within the source of a camera's delivered frames."""
        rows = self._db.execute(
            "SELECT seq, origin FROM frames WHERE run = ? AND camera = ? AND outcome = 'delivered'",
            (run, camera),
        )
        return {int(seq): str(origin) for seq, origin in rows}

    def outcomes(self, run: str) -> Outcomes:
        """Count a run's rows and summarise its latencies."""
        delivered, dropped = 0, dict[str, int]()
        for outcome, reason, n in self._db.execute(
            "SELECT outcome, reason, count(*) FROM frames WHERE run = ? GROUP BY outcome, reason", (run,)
        ):
            if outcome == "delivered":
                delivered += n
            else:
                dropped[reason] = n
        findings = self._db.execute("SELECT count(*) FROM findings WHERE run = ?", (run,)).fetchone()[0]
        return Outcomes(delivered, dropped, findings, self._latencies(run))

    def duration_s(self, run: str) -> float:
        """Return the time from the first picture captured to the last finding durable."""
        row = self._db.execute(
            "SELECT min(f.captured_ns), max(f.captured_ns + t.end_to_end_ns) FROM frames f JOIN timings t"
            " USING (run, camera, seq) WHERE f.run = ?",
            (run,),
        ).fetchone()
        return (row[1] - row[0]) / 1e9 if row and row[0] is not None else 0.0

    def timings(self, run: str) -> tuple[np.typing.NDArray[np.float64], np.typing.NDArray[np.bool_]]:
        """Return times (N, 9) ms and whether live (N,) of a run's frames.

        The columns are end to end, then wait and service of each of STAGES; NaN where a frame had no crops.
        """
        columns = ["end_to_end_ns"] + [f"{stage}_{part}_ns" for stage in STAGES for part in ("wait", "service")]
        rows = self._db.execute(
            f"SELECT {', '.join('t.' + c for c in columns)}, c.live FROM timings t JOIN cameras c ON c.run = t.run"
            " AND c.name = t.camera WHERE t.run = ?",
            (run,),
        ).fetchall()
        table = np.asarray(rows, dtype=np.float64).reshape(-1, len(columns) + 1)
        return table[:, :-1] / 1e6, table[:, -1] > 0

    def _latencies(self, run: str) -> dict[str, Any]:
        table, _ = self.timings(run)
        summary: dict[str, Any] = {"end_to_end": _percentiles(table[:, 0])}
        for i, stage in enumerate(STAGES):
            summary[stage] = {
                "wait": _percentiles(table[:, 1 + 2 * i]), "service": _percentiles(table[:, 2 + 2 * i]),
            }  # fmt: skip
        return summary

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def __enter__(self) -> StoreReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _percentiles(values: np.typing.NDArray[np.float64]) -> dict[str, float | None]:
    known = values[~np.isnan(values)]
    if not known.size:
        return {"p50": None, "p90": None, "p99": None}
    return {f"p{q}": round(float(np.percentile(known, q)), 2) for q in (50, 90, 99)}
