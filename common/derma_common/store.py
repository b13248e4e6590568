"""The database as two processes see it: the sink writes it, everybody else reads it read-only.

SQLite in WAL mode; the tables are in `schema.py`. The forwarder alone takes rows out of the outbox and writes opinions.
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
from derma_common.schema import SCHEMA_VERSION, version_of

STAGES = ("capture", "detector", "classifier", "sink")
CLOCK_STEP_S = 1.0  # smaller ones are noise: a clock that NTP slews gains half a second in 1,000 s


@dataclass(frozen=True, slots=True)
class StoredOpinion:
    """What somebody else said of a finding: a statement of its own, with its origin."""

    probabilities: dict[str, float]
    models: tuple[str, ...]
    method: str
    worker: str
    wall_ns: int

    def as_json(self) -> dict[str, Any]:
        """Return it as `derma findings --json` prints it."""
        return {
            "probabilities": self.probabilities, "models": list(self.models), "method": self.method,
            "worker": self.worker, "wall_ns": self.wall_ns,
        }  # fmt: skip


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
    second_opinions: tuple[StoredOpinion, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the line that `derma findings --json` prints."""
        return {
            "run": self.run, "camera": self.camera, "source": self.source, "file": self.origin, "seq": self.seq,
            "number": self.number, "box": [round(v, 2) for v in self.box], "score": round(self.score, 4),
            "probabilities": self.probabilities, "missing": self.missing,
            "models": {"detector": self.detector, "classifier": self.classifier},
            "second_opinions": [opinion.as_json() for opinion in self.second_opinions],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A frame's row, without its findings."""

    outcome: str
    reason: str
    width: int
    height: int
    wall_ns: int
    derma_version: str


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
            version = version_of(self._db)
        except sqlite3.DatabaseError as error:
            raise ResourceError(f"{path} is not a derma database: {error}") from error
        if not 1 <= version <= SCHEMA_VERSION:
            self._db.close()
            raise ResourceError(f"{path} has schema version {version}, this derma knows {SCHEMA_VERSION}")
        self._has_opinions = version >= 2

    def runs(self) -> list[str]:
        """Return the ids of all runs, the one that started last first."""
        rows = self._db.execute("SELECT id FROM runs ORDER BY rowid DESC")  # not by time: clocks are set back
        return [str(run) for (run,) in rows]

    def latest_run(self) -> str | None:
        """Return the id of the run that started last."""
        return next(iter(self.runs()), None)

    def cameras(self, run: str) -> dict[str, tuple[str, bool]]:
        """Return camera → (source, is live) of a run."""
        rows = self._db.execute("SELECT name, source, live FROM cameras WHERE run = ?", (run,))
        return {str(name): (str(source), bool(live)) for name, source, live in rows}

    def frame(self, run: str, camera: str, seq: int) -> StoredFrame | None:
        """Return a frame's row, None when there is none."""
        row = self._db.execute(
            "SELECT f.outcome, f.reason, f.width, f.height, f.wall_ns, r.derma_version FROM frames f JOIN runs r"
            " ON r.id = f.run WHERE f.run = ? AND f.camera = ? AND f.seq = ?",
            (run, camera, seq),
        ).fetchone()
        return StoredFrame(*row) if row else None

    def findings(self, run: str, camera: str | None = None, seq: int | None = None) -> Iterator[StoredFinding]:
        """Yield the findings of a run, of one camera or of one of its frames, by camera, picture and score."""
        asked = [("run", run), ("camera", camera), ("seq", seq)]
        terms = [f"f.{column} = ?" for column, value in asked if value is not None]  # so that the index serves
        rows = self._db.execute(
            "SELECT f.camera, c.source, r.origin, f.seq, f.number, f.x1, f.y1, f.x2, f.y2, f.score,"
            " f.probabilities, f.missing, f.detector, f.classifier FROM findings f"
            " JOIN frames r USING (run, camera, seq) JOIN cameras c ON c.run = f.run AND c.name = f.camera"
            f" WHERE {' AND '.join(terms)} ORDER BY f.camera, f.seq, f.number",
            [value for _, value in asked if value is not None],
        )
        opinions = self._opinions(run) if seq is None else {}
        for (
            name, source, origin, seq, number, x1, y1, x2, y2, score, text, missing, detector, classifier
        ) in rows:  # fmt: skip
            yield StoredFinding(
                run, name, source, origin, seq, number, (x1, y1, x2, y2), score, json.loads(text), missing, detector,
                classifier, tuple(opinions.get((name, seq, number), ())),
            )  # fmt: skip

    def _opinions(self, run: str) -> dict[tuple[str, int, int], list[StoredOpinion]]:
        """Return the second opinions on a run's findings, in the order of their coming."""
        found: dict[tuple[str, int, int], list[StoredOpinion]] = {}
        if self._has_opinions:
            for camera, seq, number, probabilities, models, method, worker, wall_ns in self._db.execute(
                "SELECT camera, seq, number, probabilities, models, method, worker, wall_ns FROM opinions"
                " WHERE run = ? ORDER BY received_wall_ns",
                (run,),
            ):
                opinion = StoredOpinion(json.loads(probabilities), tuple(json.loads(models)), method, worker, wall_ns)
                found.setdefault((camera, seq, number), []).append(opinion)
        return found

    def opinion_times(self, run: str) -> list[tuple[int, int, int]]:
        """Return of each second opinion: capture of its frame, its arrival here (wall ns), the worker's time (ns)."""
        return self._db.execute(
            "SELECT f.wall_ns, o.received_wall_ns, o.service_ns FROM opinions o JOIN frames f USING (run, camera, seq)"
            " WHERE o.run = ?",
            (run,),
        ).fetchall()

    def unreadable(self, run: str, most: int) -> list[str]:
        """Return the first files of a run that were no pictures."""
        rows = self._db.execute(
            "SELECT origin FROM frames WHERE run = ? AND reason = 'unreadable' ORDER BY camera, seq LIMIT ?",
            (run, most),
        )
        return [str(origin) for (origin,) in rows]

    def waiting(self) -> int:
        """Count the entries of the outbox that have not left."""
        row = self._db.execute("SELECT sum(rows) FROM outbox_totals WHERE quarantined = 0").fetchone()
        return int(row[0])

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

    def clock_steps_s(self, run: str) -> list[float]:
        """Return by how much the wall clock was set during a run, s, negative: back; frames are dated by it."""
        seen: dict[str, list[float]] = {}  # by camera: two of them need not date the pictures of one moment alike
        before: dict[str, int] = {}
        for camera, offset_ns in self._db.execute(
            "SELECT camera, wall_ns - captured_ns FROM frames WHERE run = ? AND captured_ns > 0"
            " ORDER BY camera, captured_ns",
            (run,),
        ):
            step_s = (offset_ns - before.setdefault(camera, offset_ns)) / 1e9
            before[camera] = offset_ns
            if abs(step_s) >= CLOCK_STEP_S:
                seen.setdefault(camera, []).append(round(step_s, 1))
        return max(seen.values(), key=len, default=[])

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
