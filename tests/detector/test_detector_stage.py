"""The detector stage over a real ring, with a fake network."""

from __future__ import annotations

import numpy as np
import pytest
from support.builders import frame

from derma_common.errors import StaleHandle
from derma_common.inference.detection import Detector
from derma_common.inference.fake import fake_detector
from derma_common.messages import Crops, Detections, Roster
from derma_common.preprocess import square_around
from derma_common.rings import RingReader, RingWriter
from derma_common.wire import decode, encode
from derma_detector.stage import MAX_DETECTIONS, DetectorStage


@pytest.fixture
def ring(run_dir):
    writer = RingWriter(run_dir, "cam0", 0, slots=2, slot_bytes=416 * 416 * 3)
    yield writer
    writer.close()


@pytest.fixture
def rings(run_dir):
    reader = RingReader(run_dir)
    yield reader
    reader.close()


@pytest.fixture
def captured(ring):
    return frame(3, attempt=1, handle=ring.write(np.zeros((416, 416, 3), dtype=np.uint8)))


@pytest.fixture
def stage_of(tmp_path, rings):
    def make(threshold=None, **behaviour):
        detector = Detector.open(fake_detector(tmp_path / "detector", **behaviour))
        return DetectorStage(detector, rings, crop_margin=0.25, score_threshold=threshold)

    return make


def test_a_frame_becomes_its_detections_and_the_work_for_the_classifiers(stage_of, captured):
    found, work = stage_of().handle(captured)
    assert isinstance(found, Detections)
    assert found.frame == work.frame == captured
    assert found.boxes == ((100, 100, 150, 150), (200, 180, 260, 230))
    assert found.scores == pytest.approx((0.9, 0.8))
    assert found.model.startswith("detector@")
    assert isinstance(work, Crops)
    assert work.squares == tuple(square_around(box, 0.25) for box in found.boxes)
    assert (work.first, work.queued_ns) == (0, found.done_ns)
    assert found.started_ns <= found.done_ns


def test_a_frame_without_lesions_makes_no_work(stage_of, captured):
    (found,) = stage_of(boxes=[], scores=[]).handle(captured)
    assert found.boxes == found.scores == ()


def test_the_threshold_of_the_settings_overrides_the_cards(stage_of, captured):
    found, work = stage_of(threshold=0.85).handle(captured)
    assert len(found.boxes) == len(work.squares) == 1


def test_a_frame_with_very_many_lesions_is_bounded_and_can_be_sent(stage_of, captured):
    boxes = [[4 * (i % 100), 4 * (i // 100), 4 * (i % 100) + 3, 4 * (i // 100) + 3] for i in range(MAX_DETECTIONS + 9)]
    scores = [[0.99 - i / 1000] for i in range(len(boxes))]
    found, work = stage_of(boxes=boxes, scores=scores).handle(captured)
    assert len(found.boxes) == len(found.scores) == len(work.squares) == MAX_DETECTIONS
    assert min(found.scores) == pytest.approx(0.99 - (MAX_DETECTIONS - 1) / 1000)
    assert decode(encode(found)) == found
    assert decode(encode(work)) == work


def test_a_frame_whose_pixels_are_gone_is_stale(stage_of, captured, ring):
    ring.release(captured.handle)
    ring.write(np.ones((416, 416, 3), dtype=np.uint8))
    ring.release(captured.handle)
    with pytest.raises(StaleHandle):
        stage_of().handle(captured)


def test_another_message_is_no_work(stage_of):
    assert list(stage_of().handle(Roster((), {}, 1))) == []


def test_a_detector_leaves_at_once(stage_of):
    stage = stage_of()
    assert not stage.finished
    stage.leave()
    assert stage.finished
