"""Joining what belongs to one attempt at one frame."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from support.builders import classifications, detections, frame

from derma_sink.join import Joins

FRAME = frame(5)


def test_a_frame_without_lesions_is_complete_with_its_detections():
    assert Joins().add(detections(FRAME, 0), 1).complete


def test_a_frame_is_complete_with_the_last_of_its_classifications():
    joins = Joins()
    assert joins.add(detections(FRAME, 3), 1) is None
    assert joins.add(classifications(FRAME, 2), 2) is None
    join = joins.add(classifications(FRAME, 1, first=2), 3)
    assert sorted(join.rows) == [0, 1, 2]
    assert join.last_ns == 3


def test_classifications_may_come_before_the_detections():
    joins = Joins()
    assert joins.add(classifications(FRAME, 2), 1) is None
    assert joins.add(detections(FRAME, 2), 2).complete


def test_the_same_message_again_changes_nothing():
    joins = Joins()
    for _ in range(3):
        assert joins.add(detections(FRAME, 2), 1) is None
        assert joins.add(classifications(FRAME, 1), 1) is None
    assert joins.add(classifications(FRAME, 1, first=1), 1).complete


def test_an_older_attempt_is_ignored():
    joins = Joins()
    newer, older = frame(5, attempt=2), frame(5, attempt=1)
    joins.add(detections(newer, 1), 1)
    assert joins.add(detections(older, 0), 2) is None
    assert joins.add(classifications(older, 1), 2) is None
    assert joins.add(classifications(newer, 1), 3).detections.frame == newer


def test_a_newer_attempt_starts_anew():
    joins = Joins()
    joins.add(detections(frame(5, attempt=0), 2), 1)
    joins.add(classifications(frame(5, attempt=0), 1), 1)
    assert joins.add(classifications(frame(5, attempt=1), 1, first=1), 2) is None
    assert joins.add(detections(frame(5, attempt=1), 2), 2) is None
    assert joins.add(classifications(frame(5, attempt=1), 1), 3).complete


def test_frames_and_cameras_are_kept_apart():
    joins = Joins()
    joins.add(detections(frame(5), 1), 1)
    assert joins.add(classifications(frame(6), 1), 1) is None
    assert joins.add(classifications(frame(5, camera="cam1"), 1), 1) is None
    assert len(joins) == 3
    assert joins.add(classifications(frame(5), 1), 1).complete


def test_a_row_of_another_length_than_its_classes_is_none():
    joins = Joins()
    joins.add(detections(FRAME, 1), 1)
    wrong = replace(classifications(FRAME, 1), probabilities=((0.5, 0.5),))
    assert joins.add(wrong, 1) is None


@given(n=st.integers(0, 5), data=st.data())
def test_in_whatever_order_and_however_often_messages_come_a_frame_completes_once_all_came(n, data):
    messages = [detections(FRAME, n), *(classifications(FRAME, 1, first=i) for i in range(n))]
    repeated = data.draw(st.lists(st.sampled_from(messages), max_size=5))
    order = data.draw(st.permutations(messages + repeated))
    joins = Joins()
    came = set()
    for message in order:
        came.add(messages.index(message))
        join = joins.add(message, 1)
        assert (join is not None) == (len(came) == len(messages))
