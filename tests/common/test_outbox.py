"""What waits to leave: totals are always the rows', ids are never used twice, what is set aside comes back in line."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.outboxes import fill, make_database

from derma_common.errors import ResourceError
from derma_common.outbox import FINDINGS, KINDS, PICTURE, OpinionRow, Outbox
from derma_common.schema import SCHEMA_VERSION, migrate, version_of
from derma_common.store import StoreReader

STEPS = ("sent", "refused", "aside", "retry", "drop")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_database(tmp_path / "derma.db")


def opinion(number: int = 0, method: str = "mean of 2") -> OpinionRow:
    return OpinionRow("run1", "cam0", 0, number, ("a@1", "b@2"), method, {"MEL": 0.75, "NV": 0.25}, "w1", 5, 6)


def test_the_urgent_leave_first_and_then_the_old(path: Path) -> None:
    fill(path, [(FINDINGS, 2), (PICTURE, 0), (FINDINGS, 0), (FINDINGS, 1), (PICTURE, 0)])
    with Outbox(path) as outbox:
        assert [(row.priority, row.id) for row in outbox.first(10)] == [(0, 2), (0, 3), (0, 5), (1, 4), (2, 1)]
        assert [row.id for row in outbox.first(2)] == [2, 3]


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2)), max_size=12),
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 11)), max_size=12),
)
def test_totals_are_the_rows_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]], steps: list[tuple[str, int]]
) -> None:
    path = make_database(tmp_path_factory.mktemp("outbox") / "derma.db")
    fill(path, rows)
    highest = len(rows)
    with Outbox(path) as outbox:
        for step, at in steps:
            waiting = outbox.first(100)
            if step == "retry":
                outbox.retry(None)
            elif waiting:
                row = waiting[at % len(waiting)]
                if step == "sent":
                    outbox.sent([row])
                elif step == "drop":
                    assert outbox.drop([row.id]) == 1
                else:
                    outbox.refused(row, "why", 1 if step == "aside" else 99)
            new = [row.id for row in (*outbox.first(100), *outbox.quarantined())]
            assert all(i <= outbox.newest_id for i in new) and outbox.newest_id >= highest
            highest = outbox.newest_id
        for kind, totals in outbox.totals().items():
            mine = [row for row in outbox.first(100) if row.kind == kind]
            assert (totals.rows, totals.bytes) == (len(mine), sum(row.bytes for row in mine))
            assert totals.quarantined == sum(row.kind == kind for row in outbox.quarantined())


def test_a_row_that_is_tried_again_comes_after_all_that_went_before(path: Path) -> None:
    fill(path, [(FINDINGS, 0), (FINDINGS, 0)])
    with Outbox(path) as outbox:
        first, second = outbox.first(2)
        assert not outbox.refused(first, "not now", 3)
        assert [(row.id, row.seq, row.attempts) for row in outbox.first(2)] == [(2, second.seq, 0), (3, first.seq, 1)]
        assert not outbox.refused(outbox.first(2)[1], "not now", 3)
        assert outbox.refused(outbox.first(2)[1], "never", 3)
        assert [(row.seq, row.attempts, row.error) for row in outbox.quarantined()] == [(first.seq, 3, "never")]
        assert outbox.retry([12345]) == 0 and outbox.retry(None) == 1
        assert [(row.seq, row.attempts) for row in outbox.first(2)] == [(second.seq, 0), (first.seq, 0)]


def test_what_waited_too_long_is_given_up_and_counted(path: Path) -> None:
    fill(path, [(FINDINGS, 0), (PICTURE, 1)], queued_wall_ns=100)
    fill(path, [(FINDINGS, 0)], queued_wall_ns=300, first_seq=10)
    with Outbox(path) as outbox:
        assert outbox.oldest_wall_ns() == 100
        assert outbox.expire(200) == 2
        assert outbox.given_up() == {(FINDINGS, "too_old"): 1, (PICTURE, "too_old"): 1}
        assert (outbox.oldest_wall_ns(), [row.seq for row in outbox.first(9)]) == (300, [10])
        assert outbox.drop(None, PICTURE) == 0 and outbox.drop(None) == 1
        assert outbox.oldest_wall_ns() is None


def test_an_opinion_is_stored_once_beside_the_finding(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.add_opinions([opinion(), opinion(1)], "7-1", 50)
        outbox.add_opinions([opinion(), opinion(0, "another method")], "9-0", 60)
        assert outbox.opinions_after == "9-0"
    with StoreReader(path) as store:
        found = {f.number: f for f in store.findings("run1", "cam0") if f.seq == 0}
    assert found == {}  # this database has no findings: opinions alone show nothing


def test_an_older_database_is_taken_along(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with sqlite3.connect(path, isolation_level=None) as db:
        migrate(db, path)
        db.executescript(
            "DROP TABLE outbox; DROP TABLE outbox_totals; DROP TABLE outbox_given_up; DROP TABLE line;"
            "DROP TABLE opinions; PRAGMA user_version = 1;"
        )
    db.close()
    with StoreReader(path) as store:
        assert list(store.findings("run1")) == []  # readable before anybody migrates it
    with Outbox(path) as outbox:
        assert outbox.first(1) == [] and outbox.epoch_ms > 1_700_000_000_000
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    db.close()


def test_no_database_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="nothing was examined yet"):
        Outbox(tmp_path / "none.db")
    (tmp_path / "text.db").write_text("not a database, but long enough to be looked at as if it were one" * 20)
    with pytest.raises(ResourceError, match=r"text\.db cannot be written"):
        Outbox(tmp_path / "text.db")


def test_two_processes_may_make_the_same_database_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    first, second = (sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False) for _ in "ab")
    first.execute("BEGIN IMMEDIATE")
    thread = threading.Thread(target=migrate, args=(second, path))
    thread.start()  # it has seen an empty file, and waits for the lock
    time.sleep(0.2)
    first.execute("COMMIT")
    migrate(first, path)
    thread.join(10)
    assert not thread.is_alive() and version_of(first) == version_of(second) == SCHEMA_VERSION
    first.close(), second.close()
