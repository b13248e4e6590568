"""A capture stage with real rings and a real heartbeat; the sink is what the test says it is."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.strategies import of_message

from derma_capture.grabber import Shot
from derma_capture.live import LiveCapture
from derma_capture.recorded import RecordedCapture
from derma_capture.slots import Slots
from derma_capture.window import CreditWindow
from derma_common.errors import SourceError
from derma_common.heartbeat import Heartbeat
from derma_common.messages import Ack, Ask, Close, Frame, Roster, Suspect
from derma_common.recordings import open_recording
from derma_common.rings import RingReader
from derma_common.seqset import SeqSet
from derma_common.settings import Camera, CaptureSettings
from derma_common.telemetry import Metrics

SECOND = 1_000_000_000
DETECTOR, SINK = "detector.0", "sink.0"
SETTINGS = CaptureSettings(window=2, window_live=2)


class Sink:
    """What the sink has made durable so far."""

    def __init__(self):
        self.rows = {}

    def deliver(self, *frames):
        for f in frames:
            self.rows.setdefault(f.seq, "delivered")

    def close(self, closes):
        for close in closes:
            for first, last in close.ranges:
                for seq in range(first, last + 1):
                    self.rows.setdefault(seq, close.reason)

    def ack(self, torn=()):
        durable, dropped = SeqSet(), {}
        for seq, reason in self.rows.items():
            durable.add(seq)
            if reason != "delivered":
                dropped[reason] = dropped.get(reason, 0) + 1
        return Ack("cam0", durable.ranges, len(self.rows) - sum(dropped.values()), dropped, tuple(torn))


class Place:
    """Makes the capture processes of one camera, one after the other."""

    def __init__(self, run_dir):
        self.run_dir = run_dir
        self.open = []

    def collaborators(self, window, incarnation):
        heartbeat = Heartbeat(self.run_dir, "capture.cam0", incarnation)
        slots = Slots(self.run_dir, "cam0", incarnation)
        self.open += [heartbeat, slots]
        credits = CreditWindow("cam0", window, incarnation)
        return Camera("cam0", "x"), SETTINGS, credits, slots, DETECTOR, 3, heartbeat, Metrics("capture.cam0")

    def recorded(self, source, incarnation=0):
        return RecordedCapture(open_recording(source), *self.collaborators(2, incarnation))

    def live(self, grabber, incarnation=0):
        return LiveCapture(grabber, *self.collaborators(2, incarnation))

    def close(self):
        for thing in reversed(self.open):
            thing.close()


@pytest.fixture
def place(run_dir):
    made = Place(run_dir)
    yield made
    made.close()


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def rings(run_dir):
    reader = RingReader(run_dir)
    yield reader
    reader.close()


@pytest.fixture
def folder(tmp_path):
    for level in range(5):
        cv2.imwrite(str(tmp_path / f"{level}.png"), np.full((8, 8, 3), 10 * level, dtype=np.uint8))
    return tmp_path


class Hand:
    """A live source in a test's hand: a Grabber without its thread."""

    def __init__(self):
        self.grabbed, self.note = 0, ""
        self.ended = False
        self.error = None
        self.shot = None

    def show(self, n=1, captured_ns=0):
        for _ in range(n):
            image = np.full((8, 8, 3), self.grabbed, dtype=np.uint8)
            self.shot = Shot(self.grabbed, captured_ns, image)
            self.grabbed += 1

    def newest(self):
        shot, self.shot = self.shot, None
        return shot

    def drain(self):
        pass


def turn(stage, now_ns=SECOND):
    """Do one tick; return frames and closings."""
    out = list(stage.tick(now_ns))
    assert stage.snapshot.holds
    return [m for m in out if isinstance(m, Frame)], [m for m in out if isinstance(m, Close)]


def turns(stage, n=4, now_ns=SECOND):
    return [f for _ in range(n) for f in turn(stage, now_ns)[0]]


def synchronised(stage, sink):
    stage.handle(sink.ack())
    return stage


def roster(ready=(DETECTOR, SINK), losses=None, classifiers=1, suspects=()):
    return Roster(tuple(ready), losses or {}, classifiers, tuple(suspects))


def test_it_asks_what_is_durable_before_anything_else(place, folder):
    stage = place.recorded(str(folder))
    assert list(stage.tick(SECOND)) == [Ask("cam0")]
    assert list(stage.tick(SECOND + 1)) == []
    assert list(stage.tick(2 * SECOND)) == [Ask("cam0")]


def test_it_sends_as_many_frames_as_it_has_credits(place, folder, sink):
    stage = synchronised(place.recorded(str(folder)), sink)
    frames = turns(stage)
    assert [(f.seq, f.origin) for f in frames] == [(0, "0.png"), (1, "1.png")]
    sink.deliver(frames[1])
    stage.handle(sink.ack())
    assert [f.seq for f in turns(stage)] == [2]


def test_the_pixels_of_a_frame_are_those_of_its_picture(place, folder, sink, rings):
    stage = synchronised(place.recorded(str(folder)), sink)
    for frame in turns(stage):
        with rings.picture(frame.handle) as image:
            assert (image == 10 * frame.seq).all()


def test_a_recording_ends_when_every_frame_has_its_outcome(place, folder, sink):
    stage = synchronised(place.recorded(str(folder)), sink)
    for _ in range(20):
        sink.deliver(*turn(stage)[0])
        assert not stage.finished or len(sink.rows) == 5
        stage.handle(sink.ack())
    assert stage.finished
    assert stage.snapshot.delivered == 5


def test_an_unreadable_picture_is_closed_with_its_file_and_takes_no_credit(place, folder, sink):
    (folder / "1.png").write_bytes(b"no picture")
    stage = synchronised(place.recorded(str(folder)), sink)
    assert [f.seq for f in turns(stage)] == [0, 2]
    closes = turn(stage, 2 * SECOND)[1]
    assert closes == [Close("cam0", ((1, 1),), "unreadable", "1.png")]
    assert stage.snapshot.dropped == {"unreadable": 1}


def test_a_restarted_recording_sends_only_what_is_not_durable(place, folder, sink):
    first = synchronised(place.recorded(str(folder)), sink)
    sink.deliver(turns(first)[1])
    successor = synchronised(place.recorded(str(folder), incarnation=1), sink)
    frames = turns(successor)
    assert [f.seq for f in frames] == [0, 2]
    assert all(f.attempt >= 1 << 16 for f in frames)
    assert successor.snapshot.captured == 3


def test_frames_are_sent_again_when_their_detector_was_replaced(place, folder, sink):
    stage = synchronised(place.recorded(str(folder)), sink)
    turns(stage)
    stage.handle(roster(ready=(SINK,), losses={DETECTOR: 1}))
    assert turns(stage) == []
    stage.handle(roster(losses={DETECTOR: 1}))
    assert [(f.seq, f.attempt) for f in turns(stage)] == [(0, 1), (1, 1)]
    stage.handle(roster(losses={DETECTOR: 1}))
    assert turns(stage) == []


def test_frames_are_sent_again_at_once_when_a_classifier_died(place, folder, sink):
    stage = synchronised(place.recorded(str(folder)), sink)
    turns(stage)
    stage.handle(roster(losses={"classifier.0": 1}))
    assert [f.attempt for f in turns(stage)] == [1, 1]


def test_only_losses_that_the_roster_still_states_are_remembered(place, folder, sink):
    stage = synchronised(place.recorded(str(folder)), sink)
    for i in range(100):
        stage.handle(roster(losses={f"classifier.{i}": 1}))
    assert stage._lost == {"classifier.99": 1}


def test_a_torn_frame_is_sent_again_once(place, folder, sink):
    stage = synchronised(place.recorded(str(folder)), sink)
    turns(stage)
    stage.handle(sink.ack(torn=[(1, 0), (1, 0), (7, 0)]))
    assert [(f.seq, f.attempt) for f in turns(stage)] == [(1, 1)]
    stage.handle(sink.ack(torn=[(1, 0)]))
    assert turns(stage) == []


def test_a_frame_without_outcome_is_sent_again_as_a_last_resort(place, folder, sink):
    stage = synchronised(place.recorded(str(folder)), sink)
    sent = turns(stage)[0].sent_ns
    assert turns(stage, now_ns=sent + 5 * SECOND) == []
    late = sent + 11 * SECOND
    assert [(f.seq, f.attempt) for f in turns(stage, n=1, now_ns=late)] == [(0, 1), (1, 1)]
    assert turns(stage, now_ns=late + SECOND) == []


def test_a_frame_that_killed_its_readers_is_given_up(place, folder, sink):
    stage = synchronised(place.recorded(str(folder)), sink)
    turns(stage)
    stage.handle(roster(suspects=[Suspect("cam0", 1, 2), Suspect("cam1", 0, 9)]))
    assert turn(stage, 2 * SECOND)[1] == []
    stage.handle(roster(suspects=[Suspect("cam0", 1, 3)], losses={"classifier.0": 3}))
    frames, closes = turn(stage, 3 * SECOND)
    assert closes == [Close("cam0", ((1, 1),), "poison")]
    assert [f.seq for f in frames] == [0]
    sink.close(closes)
    stage.handle(sink.ack())
    turn(stage)
    assert stage.snapshot.dropped == {"poison": 1}


def test_an_acknowledgement_of_another_camera_is_not_heeded(place, folder, sink):
    stage = place.recorded(str(folder))
    stage.handle(replace(sink.ack(), camera="cam1"))
    assert not stage.window.synchronised


def test_leaving_takes_nothing_new_and_finishes_what_is_in_flight(place, folder, sink):
    stage = synchronised(place.recorded(str(folder)), sink)
    frames = turn(stage)[0]
    stage.leave()
    assert turns(stage) == []
    assert not stage.finished
    sink.deliver(*frames)
    stage.handle(sink.ack())
    assert stage.finished


def test_a_live_source_sends_the_newest_and_counts_what_went_by(place, sink, rings):
    hand = Hand()
    stage = synchronised(place.live(hand), sink)
    hand.show(3)
    ((frame,), _) = turn(stage)
    assert frame.seq == 2
    with rings.picture(frame.handle) as image:
        assert (image == 2).all()
    assert stage.snapshot.captured == 3
    assert turn(stage, 2 * SECOND)[1] == [Close("cam0", ((0, 1),), "busy")]


def test_a_live_source_waits_for_a_credit_with_the_newest_picture(place, sink):
    hand = Hand()
    stage = synchronised(place.live(hand), sink)
    sent = []
    for _ in range(5):
        hand.show()
        sent += turn(stage)[0]
    assert [f.seq for f in sent] == [0, 1]
    sink.deliver(sent[0])
    stage.handle(sink.ack())
    assert [f.seq for f in turn(stage)[0]] == [4]
    assert stage.snapshot.dropped == {"busy": 2}


def test_a_live_window_grows_with_the_classifiers_at_work(place, sink):
    hand = Hand()
    stage = synchronised(place.live(hand), sink)
    stage.handle(roster(ready=(DETECTOR, SINK, "classifier.0", "classifier.1", "classifier.2"), classifiers=5))
    sent = []
    for _ in range(8):
        hand.show()
        sent += turn(stage)[0]
    assert len(sent) == 4


def test_a_live_frame_is_closed_at_its_deadline(place, sink):
    hand = Hand()
    stage = synchronised(place.live(hand), sink)
    hand.show(captured_ns=10 * SECOND)
    turn(stage, 10 * SECOND)
    assert turn(stage, 11 * SECOND)[1] == []
    assert turn(stage, 13 * SECOND)[1] == [Close("cam0", ((0, 0),), "deadline")]
    assert stage.snapshot.in_flight == 1


def test_a_restarted_live_source_goes_on_at_the_next_seq_and_closes_what_was_open(place, sink):
    hand = Hand()
    first = synchronised(place.live(hand), sink)
    hand.show(2)
    turn(first)
    hand.show()
    sink.deliver(*turn(first)[0])
    fresh = Hand()
    successor = synchronised(place.live(fresh, incarnation=1), sink)
    fresh.show()
    frames, closes = turn(successor)
    assert [f.seq for f in frames] == [3]
    assert closes == [Close("cam0", ((0, 1),), "capture_restart")]
    assert successor.snapshot.captured == 4


def test_a_live_source_that_ended_is_finished_after_its_last_picture(place, sink):
    hand = Hand()
    stage = synchronised(place.live(hand), sink)
    hand.show(3)
    hand.ended = True
    frames, _ = turn(stage)
    assert [f.seq for f in frames] == [2]
    sink.deliver(*frames)
    sink.close(turn(stage, 2 * SECOND)[1])
    stage.handle(sink.ack())
    turn(stage, 3 * SECOND)
    assert stage.finished
    assert stage.snapshot.captured == 3


def test_the_last_picture_of_a_live_source_that_ends_meanwhile_is_sent(place, sink):
    class EndsWhileItIsRead(Hand):
        def newest(self):
            shot = super().newest()
            if not self.ended:
                self.show()
                self.ended = True
            return shot

    hand = EndsWhileItIsRead()
    stage = synchronised(place.live(hand), sink)
    hand.show()
    assert [f.seq for f in turns(stage)] == [0, 1]
    assert stage.snapshot.captured == hand.grabbed


def test_a_live_source_that_gave_no_picture_is_one_error(place, sink):
    hand = Hand()
    stage = synchronised(place.live(hand), sink)
    hand.ended = True
    with pytest.raises(SourceError, match="camera cam0 gave no picture"):
        stage.tick(SECOND)


def test_a_live_source_that_does_not_open_says_why(place, sink):
    hand = Hand()
    stage = synchronised(place.live(hand), sink)
    hand.ended, hand.error = True, SourceError("camera 7 does not open")
    with pytest.raises(SourceError, match="camera 7 does not open"):
        stage.tick(SECOND)


@settings(max_examples=20)
@given(messages=st.lists(of_message(Roster) | of_message(Ack), max_size=5))
def test_whatever_is_broadcast_a_capture_goes_on(place, folder, sink, messages):
    stage = synchronised(place.recorded(str(folder)), sink)
    turn(stage)
    for message in messages:
        stage.handle(replace(message, camera="cam9") if isinstance(message, Ack) else message)
    assert turn(stage, 2 * SECOND)[0]
    place.close()
    place.open.clear()
