"""The one outcome of a frame."""

from __future__ import annotations

import pytest
from support.builders import CLASSES, box, classifications, detections, frame

from derma_sink.join import Joins
from derma_sink.outcome import closed, delivered

FRAME = frame(5, attempt=1, origin="a.png")


def joined(*messages):
    joins = Joins()
    for now_ns, message in enumerate(messages, start=1100):
        joins.add(message, now_ns)
    return joins.pop(("cam0", 5))


def test_a_complete_frame_is_delivered_with_a_probability_for_each_class():
    outcome = delivered(joined(detections(FRAME, 2), classifications(FRAME, 2)))
    assert (outcome.camera, outcome.seq, outcome.outcome, outcome.reason) == ("cam0", 5, "delivered", "")
    assert outcome.origin == "a.png"
    assert [lesion.box for lesion in outcome.lesions] == [box(0), box(1)]
    assert outcome.lesions[0].probabilities == dict(zip(CLASSES, (0.2, 0.7, 0.1), strict=True))
    assert [lesion.missing for lesion in outcome.lesions] == ["", ""]
    assert outcome.classifiers == ("cls@0", "cls@0")


def test_each_part_of_the_time_is_told_apart():
    timing = delivered(
        joined(detections(FRAME, 3), classifications(FRAME, 2), classifications(FRAME, 1, first=2))
    ).timing
    assert timing.detector_wait_ns == 10  # sent 1010, started 1020
    assert timing.detector_service_ns == 10  # to 1030
    assert timing.classifier_wait_ns == 10  # queued 1030, first started 1040
    assert timing.classifier_service_ns == 12  # last done 1052
    assert timing.sink_wait_ns == 1102 - 1052


def test_a_frame_without_lesions_has_no_time_at_the_classifier():
    outcome = delivered(joined(detections(FRAME, 0)))
    assert outcome.timing.classifier_wait_ns is outcome.timing.classifier_service_ns is None
    assert outcome.lesions == ()
    assert outcome.timing.sink_wait_ns == 1100 - 1030


def test_at_its_deadline_a_frame_with_boxes_is_a_result_that_says_what_is_missing():
    join = joined(detections(FRAME, 2), classifications(FRAME, 1))
    outcome = closed("cam0", 5, "deadline", "", join, 2000)
    assert (outcome.outcome, outcome.reason) == ("delivered", "deadline")
    assert [lesion.missing for lesion in outcome.lesions] == ["", "deadline"]
    assert outcome.lesions[1].probabilities == {}
    assert outcome.classifiers == ("cls@0", "")


def test_at_its_deadline_a_frame_without_boxes_is_dropped():
    for join in (None, joined(classifications(FRAME, 1))):
        outcome = closed("cam0", 5, "deadline", "", join, 2000)
        assert (outcome.outcome, outcome.reason, outcome.lesions) == ("dropped", "deadline", ())
        assert outcome.joined_ns == 2000


def test_a_poisoned_frame_is_dropped_and_its_boxes_stay_as_findings():
    join = joined(detections(FRAME, 2), classifications(FRAME, 1, first=1))
    outcome = closed("cam0", 5, "poison", "", join, 2000)
    assert (outcome.outcome, outcome.reason) == ("dropped", "poison")
    assert [lesion.missing for lesion in outcome.lesions] == ["poison", ""]


@pytest.mark.parametrize("reason", ["busy", "unreadable", "capture_restart", "poison"])
def test_a_frame_of_which_nothing_came_is_dropped_with_its_reason_and_file(reason):
    outcome = closed("cam0", 5, reason, "b.png", None, 2000)
    assert (outcome.outcome, outcome.reason, outcome.origin) == ("dropped", reason, "b.png")
    assert outcome.detections is outcome.timing is None
