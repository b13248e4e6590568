"""The sink's stage over a real database: one outcome per frame, acknowledged once it is durable."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.builders import classifications, detections, frame
from support.metrics import values
from support.strategies import of_message

from derma_common.heartbeat import Heartbeat, read_beat
from derma_common.messages import Ack, Ask, Close, Detections, Findings, Torn
from derma_common.seqset import SeqSet
from derma_common.telemetry import Metrics
from derma_common.topology import RESULTS
from derma_sink.stage import CLOSE_AT_ONCE, SinkStage
from derma_sink.store import StoreWriter

SECOND = 1_000_000_000


class Sink:
    """A sink process that can die and come again on the same database."""

    def __init__(self, directory):
        self.directory = directory
        self.incarnation = -1
        self.now_ns = 0
        self.start()

    def start(self):
        self.incarnation += 1
        self.store = StoreWriter(self.directory / "derma.db", "run1")
        self.metrics = Metrics("sink.0")
        self.heartbeat = Heartbeat(self.directory, "sink.0", self.incarnation)
        self.stage = SinkStage(self.store, ["cam0", "cam1"], self.metrics.sink_only(), self.heartbeat)

    def die(self):
        self.store.close()
        self.heartbeat.close()

    def turn(self, *messages, after_ns=0):
        """Hand in messages, tick, and return what comes out."""
        for message in messages:
            assert list(self.stage.handle(message)) == []
        self.now_ns += after_ns
        return list(self.stage.tick(self.now_ns))

    def rows(self):
        """Return camera, seq → outcome and reason, and the findings per frame."""
        frames = self.store._db.execute("SELECT camera, seq, outcome, reason FROM frames ORDER BY camera, seq")
        return {(camera, seq): (outcome, reason) for camera, seq, outcome, reason in frames}

    def findings(self):
        return self.store._db.execute("SELECT camera, seq, number, missing FROM findings ORDER BY 1, 2, 3").fetchall()


@pytest.fixture
def sink(run_dir):
    made = Sink(run_dir)
    made.turn(after_ns=SECOND)  # the first, regular acknowledgements
    yield made
    made.die()


def acks(out, camera="cam0"):
    return [m for m in out if isinstance(m, Ack) and m.camera == camera]


def whole(seq, lesions=2, **changes):
    of = frame(seq, **changes)
    return [detections(of, lesions), *([classifications(of, lesions)] if lesions else [])]


def test_a_complete_frame_is_stored_acknowledged_and_published_in_one_turn(sink):
    out = sink.turn(*whole(0))
    assert sink.rows() == {("cam0", 0): ("delivered", "")}
    assert acks(out) == [Ack("cam0", ((0, 0),), 1, {})]
    (published,) = [m for m in out if isinstance(m, Findings)]
    assert (published.camera, published.seq, published.outcome, len(published.lesions)) == ("cam0", 0, "delivered", 2)


def test_an_incomplete_frame_has_no_outcome_yet(sink):
    of = frame(0)
    assert sink.turn(detections(of, 2), classifications(of, 1)) == []
    assert sink.rows() == {}
    assert acks(sink.turn(classifications(of, 1, first=1)))


def test_the_same_frame_again_stores_nothing_and_is_acknowledged_again(sink):
    sink.turn(*whole(0))
    out = sink.turn(*whole(0, attempt=1))
    assert acks(out) == [Ack("cam0", ((0, 0),), 1, {})]
    assert [m for m in out if isinstance(m, Findings)] == []
    assert len(sink.findings()) == 2


def test_the_same_frame_twice_in_one_turn_is_stored_once(sink):
    sink.turn(*whole(0), *whole(0), *whole(0, attempt=3), Close("cam0", ((0, 0),), "deadline"))
    assert sink.rows() == {("cam0", 0): ("delivered", "")}
    assert len(sink.findings()) == 2


def test_the_first_outcome_of_a_turn_stands(sink):
    sink.turn(Close("cam0", ((0, 0),), "poison"), *whole(0))
    assert sink.rows() == {("cam0", 0): ("dropped", "poison")}
    assert sink.findings() == []


def test_an_older_attempt_is_not_joined_with_a_newer_one(sink):
    old, new = frame(0, attempt=0), frame(0, attempt=1)
    sink.turn(detections(old, 2), classifications(old, 1))
    sink.turn(detections(new, 2), classifications(old, 1, first=1), classifications(new, 1))
    assert sink.rows() == {}
    sink.turn(classifications(new, 1, first=1))
    assert sink.rows() == {("cam0", 0): ("delivered", "")}


def test_frames_that_are_closed_are_dropped_with_the_reason(sink):
    out = sink.turn(Close("cam0", ((0, 2), (5, 5)), "busy"))
    assert acks(out) == [Ack("cam0", ((0, 2), (5, 5)), 0, {"busy": 4})]
    assert set(sink.rows().values()) == {("dropped", "busy")}


def test_closing_again_changes_nothing(sink):
    sink.turn(Close("cam0", ((0, 2),), "busy"))
    out = sink.turn(Close("cam0", ((0, 3),), "deadline"))
    assert acks(out) == [Ack("cam0", ((0, 3),), 0, {"busy": 3, "deadline": 1})]


def test_what_came_of_a_frame_at_its_deadline_is_its_result(sink):
    of = frame(0)
    sink.turn(detections(of, 2), classifications(of, 1))
    out = sink.turn(Close("cam0", ((0, 0),), "deadline"))
    assert sink.rows() == {("cam0", 0): ("delivered", "deadline")}
    assert sink.findings() == [("cam0", 0, 0, ""), ("cam0", 0, 1, "deadline")]
    assert acks(out)[0].delivered == 1


def test_the_boxes_of_a_poisoned_frame_stay(sink):
    of = frame(0)
    sink.turn(detections(of, 1))
    sink.turn(Close("cam0", ((0, 0),), "poison"))
    assert sink.rows() == {("cam0", 0): ("dropped", "poison")}
    assert sink.findings() == [("cam0", 0, 0, "poison")]


def test_what_comes_after_a_frame_was_closed_is_not_stored(sink):
    sink.turn(Close("cam0", ((0, 0),), "deadline"))
    sink.turn(*whole(0))
    assert sink.rows() == {("cam0", 0): ("dropped", "deadline")}
    assert sink.findings() == []


def test_a_range_without_end_is_closed_in_steps(sink):
    endless = Close("cam0", ((0, 1 << 61),), "busy")
    assert acks(sink.turn(endless)) == [Ack("cam0", ((0, CLOSE_AT_ONCE - 1),), 0, {"busy": CLOSE_AT_ONCE})]
    assert acks(sink.turn(endless, endless))[0].dropped == {"busy": 2 * CLOSE_AT_ONCE}


def test_a_question_is_answered_with_what_is_durable(sink):
    sink.turn(*whole(3))
    assert sink.turn(Ask("cam0")) == [Ack("cam0", ((3, 3),), 1, {})]


def test_acknowledgements_are_repeated_without_being_asked(sink):
    assert sink.turn() == []
    assert {m.camera for m in sink.turn(after_ns=SECOND) if isinstance(m, Ack)} == {"cam0", "cam1"}


def test_a_torn_frame_is_told_to_its_camera_once(sink):
    (ack,) = acks(sink.turn(Torn("cam0", 4, 1, "DetectorStage")))
    assert ack.torn == ((4, 1),)
    assert acks(sink.turn(Ask("cam0")))[0].torn == ()


def test_cameras_are_kept_apart(sink):
    out = sink.turn(*whole(0), *whole(0, camera="cam1"), Close("cam1", ((1, 1),), "busy"))
    assert acks(out) == [Ack("cam0", ((0, 0),), 1, {})]
    assert acks(out, "cam1") == [Ack("cam1", ((0, 1),), 1, {"busy": 1})]


@pytest.mark.parametrize(
    "messages",
    [whole(0, camera="cam9"), [Close("cam9", ((0, 3),), "busy")], [Ask("cam9")], [Torn("cam9", 0, 0, "x")]],
    ids=["frame", "close", "ask", "torn"],
)
def test_a_camera_that_the_run_does_not_have_is_not_stored(sink, messages):
    assert sink.turn(*messages) == []
    assert sink.rows() == {}


def test_a_restarted_sink_knows_what_is_durable_and_stores_nothing_twice(sink):
    sink.turn(*whole(0), Close("cam0", ((1, 1),), "busy"), detections(frame(2), 1))
    sink.die()
    sink.start()
    out = sink.turn(*whole(0, attempt=1), *whole(2, lesions=1, attempt=1), Ask("cam0"))
    assert acks(out) == [Ack("cam0", ((0, 2),), 2, {"busy": 1})]
    assert len(sink.findings()) == 3


def test_a_leaving_sink_commits_what_is_complete(sink):
    for message in whole(0):
        sink.stage.handle(message)
    sink.stage.leave()
    assert sink.stage.finished
    assert sink.rows() == {("cam0", 0): ("delivered", "")}
    assert sink.store._db.execute("SELECT count(*) FROM timings").fetchone() == (1,)


def test_the_times_of_every_frame_are_stored(sink):
    sink.turn(*whole(0))
    sink.turn(*whole(1, lesions=0))
    sink.turn()
    rows = sink.store._db.execute("SELECT seq, detector_wait_ns, classifier_service_ns FROM timings ORDER BY seq")
    assert rows.fetchall() == [(0, 10, 10), (1, 10, None)]


def test_times_as_far_apart_as_the_wire_allows_can_be_stored(sink):
    far = (1 << 62) - 1
    of = frame(0, captured_ns=-far, sent_ns=-far, capture_wait_ns=far, wall_ns=far)
    sink.turn(replace(detections(of, 0), started_ns=far, done_ns=-far))
    sink.turn()
    assert sink.rows() == {("cam0", 0): ("delivered", "")}


def test_findings_and_outcomes_are_counted_in_metrics_and_heartbeat(sink, run_dir):
    sink.turn(*whole(0), Close("cam0", ((1, 2),), "busy"))
    sink.turn(after_ns=SECOND)
    assert values(sink.metrics, "derma_frame_outcomes_total")["cam0", "dropped", "busy"] == 2
    assert values(sink.metrics, "derma_findings_total")["cam0",] == 2
    assert read_beat(run_dir, "sink.0").report["findings"] == 2


def of_cam0(message):
    """Return a message of the wire as if it were about the run's camera."""
    if isinstance(message, Detections):
        return replace(message, frame=replace(message.frame, camera="cam0"))
    return replace(message, camera="cam0")


@settings(max_examples=20)
@given(messages=st.lists(st.one_of([of_message(cls) for cls in RESULTS.carries]), max_size=6))
def test_whatever_the_wire_lets_through_is_stored_or_ignored_and_survives_a_restart(sink, messages):
    sink.turn(*map(of_cam0, messages))
    sink.turn()
    before = acks(sink.turn(Ask("cam0")))
    sink.die()
    sink.start()
    assert acks(sink.turn(Ask("cam0"))) == before


class AnyOrder(RuleBasedStateMachine):
    """Messages of a few frames in any order, repeated, over restarts: rows, acknowledgements and counts agree."""

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.sink = Sink(Path(self.folder.name))
        self.seen = {}  # (camera, seq) → outcome, as first stored

    seqs, attempts = st.integers(0, 4), st.integers(0, 2)

    @rule(seq=seqs, attempt=attempts, lesions=st.integers(0, 2))
    def detections_come(self, seq, attempt, lesions):
        self.sink.stage.handle(detections(frame(seq, attempt), lesions))

    @rule(seq=seqs, attempt=attempts, n=st.integers(1, 2), first=st.integers(0, 1))
    def classifications_come(self, seq, attempt, n, first):
        self.sink.stage.handle(classifications(frame(seq, attempt), n, first))

    @rule(seq=seqs, n=st.integers(0, 2), reason=st.sampled_from(("busy", "deadline", "poison")))
    def frames_are_closed(self, seq, n, reason):
        self.sink.stage.handle(Close("cam0", ((seq, seq + n),), reason))

    @rule(ask=st.booleans())
    def a_turn_ends(self, ask):
        out = self.sink.turn(*([Ask("cam0")] if ask else []))
        rows = self.sink.rows()
        for m in acks(out):
            durable = SeqSet(m.ranges)
            assert set(durable) == {seq for _, seq in rows}
            assert m.delivered == sum(outcome == "delivered" for outcome, _ in rows.values())
            assert sum(m.dropped.values()) == len(durable) - m.delivered
        published = [m.seq for m in out if isinstance(m, Findings)]
        assert len(published) == len(set(published))
        assert {("cam0", seq) for seq in published} <= rows.keys() - self.seen.keys()
        self.check_rows()

    @rule()
    def the_sink_dies(self):
        self.sink.die()
        self.sink.start()

    def check_rows(self):
        rows = self.sink.rows()
        assert self.seen.items() <= rows.items(), "an outcome was changed"
        self.seen = rows

    @invariant()
    def no_outcome_ever_changes(self):
        if hasattr(self, "sink"):
            self.check_rows()

    def teardown(self):
        if hasattr(self, "sink"):
            self.sink.die()
            self.folder.cleanup()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
