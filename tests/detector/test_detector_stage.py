"""The detector stage over a real ring, with a fake network."""

from __future__ import annotations

import numpy as np
import pytest
from support.builders import frame

from derma_common.errors import StaleHandle
from derma_common.inference.card import InputSpec
from derma_common.inference.detection import Detector
from derma_common.inference.fake import fake_detector
from derma_common.inference.tiling import Rotation, tile_windows
from derma_common.messages import Crops, Detections, Roster
from derma_common.preprocess import square_around
from derma_common.rings import RingReader, RingWriter
from derma_common.wire import decode, encode
from derma_detector.stage import MAX_DETECTIONS, DetectorStage

SPEC = InputSpec("image", 416, 416)


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
    def make(threshold=None, tiled=None, beat=None, **behaviour):
        detector = Detector.open(fake_detector(tmp_path / "detector", **behaviour))
        return DetectorStage(detector, rings, 0.25, threshold, tiled, beat)

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


def test_a_camera_with_tiles_is_looked_at_in_them_too_and_beats_before_each(stage_of, captured):
    beats = []
    spot = {"boxes": [[200, 200, 220, 220]], "scores": [[0.9]]}  # of every picture that the network is shown
    stage = stage_of(tiled={captured.camera: Rotation(SPEC, 208)}, beat=lambda: beats.append(1), **spot)
    found, work = stage.handle(captured)
    assert len(beats) == len(tile_windows(416, 416, 208)) == 9
    # the tiles start at 0, 104 and 208; the middle of the picture is the middle tile's to find, not the whole's
    tiles = {(x + 100.0, y + 100.0, x + 110.0, y + 110.0) for x in (0, 104, 208) for y in (0, 104, 208)}
    assert set(found.boxes) == tiles
    assert work.squares == tuple(square_around(box, 0.25) for box in found.boxes)


def test_a_live_camera_takes_its_tiles_in_turn_and_another_camera_has_none(stage_of, captured):
    spot = {"boxes": [[50, 50, 70, 70]], "scores": [[0.9]]}
    stage = stage_of(tiled={captured.camera: Rotation(SPEC, 208, at_once=3), "other": Rotation(SPEC, 64)}, **spot)
    seen = [set(stage.handle(captured)[0].boxes) for _ in range(4)]
    whole = (50.0, 50.0, 70.0, 70.0)
    assert [len(boxes - {whole}) for boxes in seen] == [3, 3, 3, 3]
    assert seen[0] == seen[3] and len(set().union(*seen) - {whole}) == 9
    assert [whole in boxes for boxes in seen] == [False, True, True, False]  # not where the first tile shows the place
    assert stage_of(tiled={"other": Rotation(SPEC, 64)}, **spot).handle(captured)[0].boxes == (whole,)


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
