"""The database: what was committed is there after a reopen, once."""

from __future__ import annotations

import json
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import classifications, detections, frame

from derma_common.errors import ResourceError
from derma_common.inference.card import read_card
from derma_common.schema import SCHEMA_VERSION
from derma_common.store import StoreReader
from derma_sink.join import Joins
from derma_sink.outcome import closed, delivered
from derma_sink.store import StoreWriter


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "derma.db"


@pytest.fixture
def open_store(path, detector_dir, classifier_dir):
    stores = []

    def reopen(run="run1", at=path):
        store = StoreWriter(at, run)
        stores.append(store)
        cameras = [("cam0", "a.mp4", False), ("cam1", "rtsp://h", True)]
        store.begin_run(7, "boot", "0", cameras, read_card(detector_dir), read_card(classifier_dir))
        return store

    yield reopen
    for store in stores:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()


def done(seq, lesions=2, camera="cam0"):
    of = frame(seq, camera=camera, origin=f"{seq}.png")
    joins = Joins()
    joins.add(detections(of, lesions), 1)
    joins.add(classifications(of, lesions), 2)
    return delivered(joins.pop((camera, seq)))


def dropped(seq, reason="busy", camera="cam0"):
    return closed(camera, seq, reason, "", None, 1)


def timing(seq, ms=1):
    ns = ms * 1_000_000
    return ("run1", "cam0", seq, ns, ns, ns, ns, None, None, ns, ns, 10 * ns)


def test_a_fresh_database_has_nothing_durable(store):
    seqs, n, reasons = store.durable("cam0")
    assert (len(seqs), n, reasons) == (0, 0, {})


def test_what_is_durable_is_known_after_a_reopen(open_store, store):
    store.commit([done(0), done(1), dropped(4), dropped(2, "poison"), done(0, camera="cam1")], [])
    store.close()
    seqs, n, reasons = open_store().durable("cam0")
    assert seqs.ranges == ((0, 2), (4, 4))
    assert (n, reasons) == (2, {"busy": 1, "poison": 1})


def test_a_second_connection_sees_a_commit_at_once(store, path):
    store.commit([done(3)], [])
    with StoreReader(path) as reader:
        assert reader.outcomes("run1").delivered == 1


def test_runs_are_kept_apart(open_store, store):
    store.commit([done(0)], [])
    other = open_store("run2")
    assert len(other.durable("cam0")[0]) == 0
    other.commit([dropped(0)], [])
    assert (store.findings(), other.findings()) == (2, 0)


def test_a_frame_is_not_stored_twice(store):
    store.commit([done(0)], [])
    with pytest.raises(sqlite3.IntegrityError):
        store.commit([done(1), dropped(0)], [])
    assert store.durable("cam0")[0].ranges == ((0, 0),)
    assert store.findings() == 2
    store.commit([done(1)], [])
    assert store.findings() == 4


def test_beginning_a_run_again_changes_nothing(open_store, store, path):
    store.commit([done(0)], [])
    open_store()
    with StoreReader(path) as reader:
        assert reader.latest_run() == "run1"
        assert reader.cameras("run1") == {"cam0": ("a.mp4", False), "cam1": ("rtsp://h", True)}


def test_findings_are_read_back_as_they_were(store, path):
    store.commit([done(0), done(1, 1), dropped(2)], [])
    with StoreReader(path) as reader:
        found = list(reader.findings("run1"))
    assert [(f.camera, f.seq, f.number, f.origin) for f in found] == [
        ("cam0", 0, 0, "0.png"), ("cam0", 0, 1, "0.png"), ("cam0", 1, 0, "1.png"),
    ]  # fmt: skip
    assert found[1].box == (1.0, 1.0, 11.0, 9.0)
    assert found[0].probabilities == {"benign": 0.2, "melanoma": 0.7, "unknown": 0.1}
    assert (found[0].detector, found[0].classifier, found[0].source) == ("det@0", "cls@0", "a.mp4")
    assert json.loads(json.dumps(found[0].as_json()))["box"] == [0.0, 0.0, 10.0, 8.0]


def test_findings_of_one_camera(store, path):
    store.commit([done(0), done(0, camera="cam1")], [])
    with StoreReader(path) as reader:
        assert {f.camera for f in reader.findings("run1", "cam1")} == {"cam1"}
        assert reader.frame_files("run1", "cam1") == {0: "0.png"}


def test_the_models_of_a_run_are_stored_with_their_cards(store, path, detector_dir):
    db = sqlite3.connect(path)
    rows = dict(db.execute("SELECT id, card FROM models"))
    db.close()
    card = read_card(detector_dir)
    assert json.loads(rows[card.id])["sha256"] == card.sha256
    assert len(rows) == 2


def test_latencies_are_summarised_without_those_that_a_frame_does_not_have(store, path):
    store.commit([done(i) for i in range(3)], [timing(i, ms) for i, ms in enumerate((1, 2, 3))])
    with StoreReader(path) as reader:
        latency = reader.outcomes("run1").latency_ms
    assert latency["detector"]["wait"]["p50"] == pytest.approx(2)
    assert latency["end_to_end"]["p50"] == pytest.approx(20)
    assert latency["classifier"]["service"] == {"p50": None, "p90": None, "p99": None}


def test_a_run_lasts_from_its_first_picture_to_its_last_finding(store, path):
    store.commit([done(0)], [timing(0, 100)])
    with StoreReader(path) as reader:
        assert reader.duration_s("run1") == pytest.approx(1.0)
        assert reader.duration_s("none") == 0


def test_an_empty_database_knows_no_run(path):
    StoreWriter(path, "r").close()
    with StoreReader(path) as reader:
        assert reader.latest_run() is None
        assert reader.outcomes("r").delivered == 0


def set_version(path, version):
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {version}")
    db.commit()
    db.close()


def test_the_schema_is_numbered(store, path):
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    db.close()


def test_a_database_of_a_newer_derma_is_refused_by_writer_and_reader(store, path):
    store.close()
    set_version(path, SCHEMA_VERSION + 1)
    with pytest.raises(ResourceError, match="newer derma"):
        StoreWriter(path, "run1")
    with pytest.raises(ResourceError, match=f"has schema version {SCHEMA_VERSION + 1}"):
        StoreReader(path)


def test_a_file_that_is_no_database_is_refused_by_writer_and_reader(path):
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(ResourceError, match="cannot be written"):
        StoreWriter(path, "run1")
    with pytest.raises(ResourceError, match="is not a derma database"):
        StoreReader(path)


def test_a_database_that_is_not_there_is_one_line_and_not_made(tmp_path):
    with pytest.raises(ResourceError, match="nothing was examined yet"):
        StoreReader(tmp_path / "derma.db")
    assert list(tmp_path.iterdir()) == []


def test_a_place_where_nothing_can_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        StoreWriter(tmp_path / "file" / "derma.db", "run1")


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%20b", "ä b", "a&mode=rw"])
def test_the_data_directory_may_have_any_name(open_store, tmp_path, name):
    path = tmp_path / name / "derma.db"
    open_store(at=path).commit([done(0)], [])
    with StoreReader(path) as reader:
        assert reader.outcomes("run1").delivered == 1


def test_a_reader_writes_nothing(store, path):
    with StoreReader(path) as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._db.execute("DELETE FROM frames")


@given(outcomes=st.dictionaries(st.integers(0, 40), st.sampled_from(("", "busy", "poison", "deadline")), max_size=12))
def test_durable_counts_are_the_rows(tmp_path_factory, outcomes):
    store = StoreWriter(tmp_path_factory.mktemp("db") / "derma.db", "r")
    store.commit([dropped(seq, reason) if reason else done(seq, 1) for seq, reason in outcomes.items()], [])
    seqs, n, reasons = store.durable("cam0")
    assert list(seqs) == sorted(outcomes)
    assert n == sum(not reason for reason in outcomes.values())
    assert sum(reasons.values()) == len(outcomes) - n
    assert all(reasons[r] == list(outcomes.values()).count(r) for r in reasons)
    store.close()


def test_a_disk_that_is_full_is_one_line_and_what_was_stored_stays(store, path):
    store.commit([done(0)], [])
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way to be out of room
    with pytest.raises(ResourceError, match="takes no more: database or disk is full; make room on its disk"):
        store.commit([done(seq) for seq in range(1, 400)], [])
    assert list(store.durable("cam0")[0].ranges) == [(0, 0)]
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.commit([done(1)], [])
    assert list(store.durable("cam0")[0].ranges) == [(0, 1)], "with room it goes on"
