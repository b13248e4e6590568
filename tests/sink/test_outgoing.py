"""What of a durable frame leaves the machine: findings always, pictures of the doubtful, within their bounds."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import CLASSES, classifications, detections, frame
from support.outboxes import make_database

from derma_common.cloud.entries import Picture, image_of, unpack
from derma_common.outbox import FINDINGS, PICTURE, Outbox
from derma_common.preprocess import cut, square_around
from derma_common.rings import RingReader, RingWriter
from derma_common.settings import CloudSettings
from derma_sink.join import Join
from derma_sink.outbox import OutboxRoom
from derma_sink.outcome import Outcome, closed, delivered
from derma_sink.outgoing import DOUBTFUL, PLAIN, SUSPICIOUS, Outgoing, OutgoingRow, Triage

ISIC = ("AK", "BCC", "BKL", "DF", "MEL", "NV", "SCC", "UNK", "VASC")
SECOND_NS = 1_000_000_000


@pytest.fixture
def ring(run_dir):
    writer = RingWriter(run_dir, "cam0", 0, slots=4, slot_bytes=48 * 64 * 3)
    yield writer
    writer.close()


@pytest.fixture
def outgoing_of(run_dir):
    readers = []

    def make(**settings):
        readers.append(RingReader(run_dir))
        return Outgoing(CloudSettings(**settings), readers[-1], Triage(CLASSES), 0.25)

    yield make
    for reader in readers:
        reader.close()


def outcome_of(ring: RingWriter, seq: int = 0, lesions: int = 1, likely: str = "melanoma", **changes) -> Outcome:
    """A delivered frame whose lesions are all `likely` with .9."""
    image = np.random.default_rng(seq).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    of = frame(seq, handle=ring.write(image), **changes)
    row = tuple(0.9 if name == likely else 0.05 for name in CLASSES)
    results = replace(classifications(of, lesions), probabilities=(row,) * lesions)
    join = Join(0)
    join.add(detections(of, lesions))
    join.add(results)
    return delivered(join)


@pytest.mark.parametrize(
    ("probabilities", "priority"),
    [
        ({"MEL": 0.4, "NV": 0.3, "BKL": 0.3}, SUSPICIOUS),  # not the likeliest, and yet
        ({"MEL": 0.2, "NV": 0.5, "UNK": 0.3}, DOUBTFUL),  # nothing is likely
        ({"MEL": 0.6, "NV": 0.4}, SUSPICIOUS),
        ({"BCC": 0.3, "SCC": 0.2, "AK": 0.1, "NV": 0.4}, SUSPICIOUS),  # no class leads, their sum does
        ({"UNK": 0.7, "NV": 0.3}, DOUBTFUL),
        ({"NV": 0.9, "MEL": 0.1}, PLAIN),
        ({"NV": 0.5, "BKL": 0.4, "VASC": 0.1}, PLAIN),
    ],
)
def test_suspicious_first_then_doubtful_then_the_rest(probabilities, priority):
    assert Triage(ISIC).priority(probabilities.get(name, 0.0) for name in ISIC) == priority


def test_what_was_not_classified_or_has_classes_of_its_own_is_doubtful():
    assert Triage(ISIC).priority(()) == DOUBTFUL
    assert Triage(("wart", "no wart")).priority((0.9, 0.1)) == DOUBTFUL


def test_a_frame_s_priority_is_its_most_urgent_lesion_s(ring, outgoing_of):
    (row,) = outgoing_of().rows(outcome_of(ring, lesions=3))
    assert row == OutgoingRow(FINDINGS, SUSPICIOUS, "cam0", 0, -1, None)


def test_frames_without_findings_and_dropped_frames_stay(ring, outgoing_of):
    outgoing = outgoing_of(pictures="all")
    assert outgoing.rows(outcome_of(ring, lesions=0)) == []
    assert outgoing.rows(closed("cam0", 1, "busy", "", None, 1)) == []


def test_a_picture_is_the_lesion_cut_as_for_the_classifier(ring, outgoing_of, run_dir):
    outgoing = outgoing_of(pictures="doubtful", picture_px=32)
    outcome = outcome_of(ring, lesions=2)
    findings, first, second = outgoing.rows(outcome)
    assert (findings.kind, first.kind, first.number, second.number) == (FINDINGS, PICTURE, 0, 1)
    found = image_of(unpack(second.picture, Picture))
    image = ring.view(outcome.detections.frame.handle)
    assert np.array_equal(found, cut(image, square_around(outcome.lesions[1].box, 0.25), 32))
    assert [r.kind for r in outgoing.rows(outcome_of(ring, 1, likely="benign", captured_ns=9 * SECOND_NS))] == [
        FINDINGS
    ]


def test_a_video_gives_pictures_now_and_then_a_folder_always(ring, outgoing_of):
    outgoing = outgoing_of(pictures="all", picture_every_s=1.0)

    first = outcome_of(ring, 0, captured_ns=10 * SECOND_NS)
    soon = outcome_of(ring, 1, captured_ns=10 * SECOND_NS + 1)
    later = outcome_of(ring, 2, captured_ns=11 * SECOND_NS)
    file = outcome_of(ring, 3, captured_ns=11 * SECOND_NS + 1, origin="a.png")
    assert [len(outgoing.rows(o)) - 1 for o in (first, soon, later, file)] == [1, 0, 1, 1]


def test_a_picture_that_is_gone_is_counted_and_the_findings_go_without(ring, outgoing_of):
    outgoing = outgoing_of(pictures="all")
    outcome = outcome_of(ring, lesions=2)
    ring.release(outcome.detections.frame.handle)
    for _ in range(4):
        ring.write(np.zeros((48, 64, 3), np.uint8))
    assert [row.kind for row in outgoing.rows(outcome)] == [FINDINGS]
    assert outgoing.stale == 2


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60)), min_size=1, max_size=30),
    st.sampled_from(["discard_oldest", "refuse_new"]),
)
def test_pictures_never_take_more_than_their_bytes_and_findings_are_never_refused(
    tmp_path_factory: pytest.TempPathFactory, pictures: list[tuple[int, int]], when_full: str
):
    path = make_database(tmp_path_factory.mktemp("room") / "derma.db")
    room = OutboxRoom(100, when_full)
    db = sqlite3.connect(path, isolation_level=None)
    kept: list[int] = []
    for seq, (priority, size) in enumerate(pictures):
        before = dict(db.execute("SELECT seq, priority FROM outbox WHERE kind = 'picture'"))
        rows = [
            OutgoingRow(FINDINGS, priority, "cam0", seq, -1, None),
            OutgoingRow(PICTURE, priority, "cam0", seq, 0, bytes(size)),
        ]
        room.enqueue(db, "run1", rows)
        after = dict(db.execute("SELECT seq, priority FROM outbox WHERE kind = 'picture'"))
        lost = [before[i] for i in before.keys() - after.keys()]
        assert not lost or (when_full == "discard_oldest" and seq in after and min(lost) >= priority)
        kept.append(len(after))
    assert db.execute("SELECT count(*) FROM outbox WHERE kind = 'findings'").fetchone() == (len(pictures),)
    assert db.execute("SELECT coalesce(sum(bytes), 0) FROM outbox").fetchone()[0] <= 100
    db.close()
    with Outbox(path) as outbox:
        assert outbox.given_up().get((PICTURE, "full"), 0) == len(pictures) - kept[-1]


def test_the_least_urgent_and_oldest_pictures_make_room(tmp_path: Path):
    path = make_database(tmp_path / "derma.db")
    db = sqlite3.connect(path, isolation_level=None)
    room = OutboxRoom(100, "discard_oldest")
    for seq, priority in enumerate((0, 2, 2, 1)):
        room.enqueue(db, "run1", [OutgoingRow(PICTURE, priority, "cam0", seq, 0, bytes(25))])
    room.enqueue(db, "run1", [OutgoingRow(PICTURE, 1, "cam0", 4, 0, bytes(30))])
    assert sorted(db.execute("SELECT seq FROM outbox").fetchall()) == [(0,), (3,), (4,)]  # 1 and 2 went: 30 > 25
    room.enqueue(db, "run1", [OutgoingRow(PICTURE, 2, "cam0", 5, 0, bytes(50))])  # nobody is less urgent than it
    assert sorted(db.execute("SELECT seq FROM outbox").fetchall()) == [(0,), (3,), (4,)]
    db.close()
