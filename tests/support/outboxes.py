"""Databases with something in the outbox, made without a pipeline."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from derma_common.cloud.entries import pack, picture_of
from derma_common.outbox import FINDINGS
from derma_common.schema import migrate

PROBABILITIES = {"MEL": 0.7, "NV": 0.2, "UNK": 0.1}


def make_database(path: Path) -> Path:
    """Make an empty database."""
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    migrate(db, path)
    db.execute("INSERT INTO runs VALUES ('run1', 1, 'boot', '0.1', 'det@1', 'cls@1')")
    db.execute("INSERT INTO cameras VALUES ('run1', 'cam0', 'a.mp4', 0)")
    db.close()
    return path


def fill(
    path: Path, rows: Sequence[tuple[str, int]], *, queued_wall_ns: int = 1, first_seq: int = 0, findings: bool = False
) -> None:
    """Add rows (kind, priority) of successive frames; with `findings`, the frames and one finding of each too."""
    picture = pack(picture_of(np.full((8, 8, 3), 7, np.uint8), "raw"))
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN")
    for seq, (kind, priority) in enumerate(rows, first_seq):
        body = None if kind == FINDINGS else picture
        number = -1 if kind == FINDINGS else 0
        db.execute(
            "INSERT INTO outbox (kind, priority, run, camera, seq, number, queued_wall_ns, picture, bytes)"
            " VALUES (?, ?, 'run1', 'cam0', ?, ?, ?, ?, ?)",
            (kind, priority, seq, number, queued_wall_ns, body, len(body or b"")),
        )
        if findings:
            db.execute("INSERT INTO frames VALUES ('run1', 'cam0', ?, 'delivered', '', 0, '', 64, 48, 1, 9)", (seq,))
            db.execute(
                "INSERT INTO findings (run, camera, seq, number, x1, y1, x2, y2, score, detector, classifier,"
                " probabilities, missing) VALUES ('run1', 'cam0', ?, 0, 1, 2, 11, 12, 0.9, 'det@1', 'cls@1', ?, '')",
                (seq, json.dumps(PROBABILITIES)),
            )
    db.execute("COMMIT")
    db.close()
