"""The database's tables, as numbered steps from an empty file to today's.

`user_version` counts the steps that a file has taken. A file of a newer derma is refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from derma_common.errors import ResourceError

_EXAMS = """
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
# What is to leave the machine. A finding's row names a frame, whose own rows are the content; a picture's row holds it.
# AUTOINCREMENT: an id is never used again, and the streams rely on its growing.
_OUTBOX = """
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('findings', 'picture')),
    priority INTEGER NOT NULL,
    run TEXT NOT NULL,
    camera TEXT NOT NULL,
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    queued_wall_ns INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    quarantined INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    picture BLOB, -- last, so that reading the others does not read it
    UNIQUE (kind, run, camera, seq, number)
) STRICT;
CREATE INDEX outbox_order ON outbox (kind, quarantined, priority, id);
CREATE TABLE outbox_totals (
    kind TEXT NOT NULL,
    quarantined INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (kind, quarantined)
) STRICT, WITHOUT ROWID;
INSERT INTO outbox_totals VALUES ('findings', 0, 0, 0), ('findings', 1, 0, 0);
INSERT INTO outbox_totals VALUES ('picture', 0, 0, 0), ('picture', 1, 0, 0);
CREATE TRIGGER outbox_inserted AFTER INSERT ON outbox BEGIN
    UPDATE outbox_totals SET rows = rows + 1, bytes = bytes + new.bytes
    WHERE kind = new.kind AND quarantined = new.quarantined;
END;
CREATE TRIGGER outbox_deleted AFTER DELETE ON outbox BEGIN
    UPDATE outbox_totals SET rows = rows - 1, bytes = bytes - old.bytes
    WHERE kind = old.kind AND quarantined = old.quarantined;
END;
CREATE TRIGGER outbox_moved AFTER UPDATE OF quarantined ON outbox WHEN old.quarantined <> new.quarantined BEGIN
    UPDATE outbox_totals SET rows = rows - 1, bytes = bytes - old.bytes
    WHERE kind = old.kind AND quarantined = old.quarantined;
    UPDATE outbox_totals SET rows = rows + 1, bytes = bytes + new.bytes
    WHERE kind = new.kind AND quarantined = new.quarantined;
END;
CREATE TABLE outbox_given_up (
    kind TEXT NOT NULL,
    reason TEXT NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (kind, reason)
) STRICT, WITHOUT ROWID;
CREATE TABLE line (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch_ms INTEGER NOT NULL,
    opinions_after TEXT NOT NULL
) STRICT;
INSERT INTO line VALUES (1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER), '0-0');
CREATE TABLE opinions (
    run TEXT NOT NULL,
    camera TEXT NOT NULL,
    seq INTEGER NOT NULL,
    number INTEGER NOT NULL,
    models TEXT NOT NULL,
    method TEXT NOT NULL,
    probabilities TEXT NOT NULL,
    worker TEXT NOT NULL,
    wall_ns INTEGER NOT NULL,
    service_ns INTEGER NOT NULL,
    received_wall_ns INTEGER NOT NULL,
    PRIMARY KEY (run, camera, seq, number, models, method)
) STRICT, WITHOUT ROWID;
"""
_STEPS = (_EXAMS, _OUTBOX)
SCHEMA_VERSION = len(_STEPS)


def version_of(db: sqlite3.Connection) -> int:
    """Return how many steps a file has taken; 0 for an empty one."""
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Take the steps that are missing, in one transaction. Raises ResourceError for a newer derma's file.

    `db` must be in autocommit mode. Two processes may do this at once: the second finds nothing left to do.
    """
    if version_of(db) == SCHEMA_VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        version = version_of(db)
        if version > SCHEMA_VERSION:
            raise ResourceError(f"{path} was written by a newer derma (schema {version}, known {SCHEMA_VERSION})")
        for step in _STEPS[version:]:
            for statement in _statements(step):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _statements(script: str) -> Iterator[str]:
    """Split a script, triggers in one piece: `executescript` would end the transaction."""
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
