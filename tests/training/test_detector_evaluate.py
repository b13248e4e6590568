"""The figures of a detector, against answers worked out by hand."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")

from derma_common.errors import SourceError
from derma_common.inference.detection import Detections
from derma_training.detector import evaluate as measure
from derma_training.detector.sources import NONE, Picture

pytestmark = pytest.mark.train

BLANK = np.zeros((100, 100, 3), np.uint8)


class Scripted:
    """A detector that answers what it was told, picture by picture."""

    def __init__(self, *answers):
        self._answers = iter(answers)

    def detect(self, image, score_threshold):
        boxes, scores = next(self._answers)
        return Detections(np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32))


def picture(boxes, ignored=()):
    rows = [np.asarray(b, np.float32).reshape(-1, 4) for b in (boxes, ignored)]
    return Picture(BLANK, rows[0], rows[1], "test")


def scored():
    return measure.score(
        Scripted(
            ([[0, 0, 10, 10], [50, 50, 60, 60]], [0.9, 0.6]),  # a hit, and a false alarm
            ([[0, 0, 10, 10], [20, 20, 30, 30]], [0.7, 0.3]),  # a hit, and one in an ignored box
            ([[80, 80, 90, 90]], [0.5]),  # a hit
        ),
        [
            picture([[0, 0, 10, 10], [30, 30, 40, 40]]),
            picture([[0, 0, 10, 10]], [[18, 18, 32, 32]]),
            picture([[80, 80, 90, 90]]),
        ],
    )


def test_hits_misses_and_ignored_detections_are_counted():
    assert scored().hits.tolist() == [True, True, False, True]
    figures = measure.figures(scored(), 0.55)
    assert (figures["pictures"], figures["boxes"], figures["ap50"]) == (3, 4, 0.6875)
    assert (figures["recall"], figures["precision"], figures["f1"]) == (0.5, 0.6667, 0.5714)
    assert figures["fp_per_image"] == 0.3333


def test_average_precision_is_the_area_under_the_envelope():
    # precision 1, 1, 2/3, 3/4 at recall 1/4, 2/4, 2/4, 3/4: the envelope gives 1/4 + 1/4 + 3/4 · 1/4
    assert measure.average_precision(scored()) == pytest.approx(0.25 + 0.25 + 0.75 * 0.25)
    nothing = measure.score(Scripted(([], [])), [picture([[0, 0, 5, 5]])])
    assert measure.average_precision(nothing) == 0


def test_lesion_free_pictures_have_false_positives_only():
    empty = measure.score(Scripted(([[1, 1, 9, 9]], [0.4]), ([], [])), [picture([]), picture([])])
    assert measure.figures(empty, 0.3) == {"pictures": 2, "boxes": 0, "fp_per_image": 0.5}


def test_the_threshold_is_the_best_f1_that_is_quiet_on_healthy_skin():
    found = measure.Scored(np.asarray([0.9, 0.4, 0.2], np.float32), np.asarray([True, True, False]), 2, 2)
    assert 0.2 <= measure.choose_threshold({"a": found}) < 0.4
    alarms = measure.Scored(np.asarray([0.6, 0.6], np.float32), np.asarray([False, False]), 0, 2)
    assert 0.6 <= measure.choose_threshold({"a": found, "skin": alarms}) < 0.9


def test_tiles_cover_a_wide_picture_and_spare_boxes_that_they_cut():
    wide = Picture(np.zeros((890, 1094, 3), np.uint8), np.asarray([[400, 10, 440, 30]], np.float32), NONE, "itobos")
    cut = list(measure.tiles(wide))
    assert len(cut) == 9 and all(t.image.shape == (416, 416, 3) for t in cut)
    assert cut[1].boxes.tolist() == [[60, 10, 100, 30]]
    assert len(cut[0].boxes) == 0 and cut[0].ignored.tolist() == [[400, 10, 416, 30]]


def test_drawn_pictures_are_the_same_each_time_and_differ_between_splits():
    tune, again, test = (next(iter(measure.drawn(split))) for split in ("tune", "tune", "test"))
    assert np.array_equal(tune.image, again.image) and not np.array_equal(tune.image, test.image)


def test_a_recording_is_read_with_its_truth_and_one_without_is_refused(tmp_path):
    video = tmp_path / "a.mp4"
    film = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for _ in range(3):
        film.write(np.zeros((48, 64, 3), np.uint8))
    film.release()
    with pytest.raises(SourceError, match="no readable truth"):
        next(measure.recording(video))
    frames = [{"seq": n, "lesions": [{"id": 1, "kind": "nevus", "box": [1, 2, 3, 4]}] * (n == 0)} for n in range(4)]
    video.with_suffix(".json").write_text(json.dumps({"frames": frames}))
    read = measure.recording(video)
    assert [len(next(read).boxes) for _ in range(3)] == [1, 0, 0]
    with pytest.raises(SourceError, match="ends before frame 3"):
        next(read)
