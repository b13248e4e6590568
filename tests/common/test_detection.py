"""What a detector's and a classifier's outputs mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.errors import ModelError
from derma_common.inference.classification import Classifier
from derma_common.inference.detection import MIN_SIDE_PX, Detector, decode
from derma_common.inference.fake import fake_classifier, fake_detector


def rows(boxes):
    return np.asarray(boxes, dtype=np.float32).reshape(-1, 4)


def scores(values):
    return np.asarray(values, dtype=np.float32)


def paint(height=208, width=208, level=0):
    return np.full((height, width, 3), level, dtype=np.uint8)


def opened(directory, **behaviour):
    return Detector.open(fake_detector(directory, **behaviour))


def test_boxes_come_best_first_without_the_unlikely_and_the_doubles():
    boxes = rows([(0, 0, 10, 10), (50, 50, 60, 60), (0, 0, 10, 11), (80, 80, 90, 90)])
    found = decode(boxes, scores([0.6, 0.9, 0.8, 0.2]), 0.25, 0.45)
    assert found.boxes.tolist() == [[50, 50, 60, 60], [0, 0, 10, 11]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])


def test_a_score_must_be_above_the_threshold():
    assert len(decode(rows([(0, 0, 10, 10)]), scores([0.5]), 0.5, 0.45)) == 0


BOX = st.tuples(st.integers(0, 90), st.integers(0, 90), st.integers(1, 30), st.integers(1, 30))


@given(st.lists(st.tuples(BOX, st.floats(0, 1, width=32)), max_size=15), st.floats(0, 1, width=32))
def test_decoding_keeps_only_rows_above_the_threshold_in_falling_order(found, threshold):
    boxes = rows([(x, y, x + w, y + h) for (x, y, w, h), _ in found])
    kept = decode(boxes, scores([s for _, s in found]), threshold, 0.45)
    assert (kept.scores > np.float32(threshold)).all()
    assert (np.diff(kept.scores) <= 0).all()
    assert (len(kept) > 0) == any(s > threshold for _, s in found)
    assert {tuple(b) for b in kept.boxes.tolist()} <= {tuple(b) for b in boxes.tolist()}


def test_boxes_are_found_in_pixels_of_the_captured_picture(tmp_path):
    detector = opened(tmp_path / "d", boxes=[[104, 104, 208, 156]], scores=[[0.9]])
    assert detector.detect(paint(208, 208)).boxes.tolist() == [[52, 52, 104, 78]]
    wide = detector.detect(paint(416, 832)).boxes.tolist()
    assert wide == [[208, 0, 416, 104]]


def test_boxes_are_cut_at_the_edge_and_what_lies_outside_is_no_lesion(tmp_path):
    detector = opened(tmp_path / "d", boxes=[[-50, -50, 60, 40], [420, 10, 500, 90]], scores=[[0.9], [0.8]])
    assert detector.detect(paint(416, 416)).boxes.tolist() == [[0, 0, 60, 40]]


def test_a_box_too_thin_for_a_crop_is_no_lesion(tmp_path):
    thin = MIN_SIDE_PX / 2
    detector = opened(tmp_path / "d", boxes=[[10, 10, 10 + thin, 90]], scores=[[0.9]])
    assert len(detector.detect(paint(416, 416))) == 0


def test_the_thresholds_of_the_card_hold_unless_others_are_given(tmp_path):
    detector = opened(tmp_path / "d", scores=[[0.9], [0.3]])
    assert len(detector.detect(paint())) == 2
    assert len(detector.detect(paint(), score_threshold=0.5)) == 1


def test_a_detector_that_finds_nothing_finds_nothing(tmp_path):
    found = opened(tmp_path / "d", boxes=[], scores=[]).detect(paint())
    assert found.boxes.shape == (0, 4)
    assert len(found) == 0


def test_probabilities_come_for_every_crop_however_many(tmp_path):
    classifier = Classifier.open(fake_classifier(tmp_path / "c", logits=[0, np.log(3).item(), 0]))
    table = classifier.classify([paint(40, 40)] * (classifier.card.input.max_batch + 3))
    assert table.shape == (classifier.card.input.max_batch + 3, 3)
    np.testing.assert_allclose(table, np.tile([0.2, 0.6, 0.2], (len(table), 1)), atol=1e-6)


def test_no_crop_gives_no_probabilities(tmp_path):
    assert Classifier.open(fake_classifier(tmp_path / "c")).classify([]).shape == (0, 3)


@pytest.mark.parametrize("logits", [[1.0, 2.0], [1.0] * 4])
def test_a_network_with_another_number_of_classes_than_its_card_is_one_clear_error(tmp_path, logits):
    classifier = Classifier.open(fake_classifier(tmp_path / "c", logits=logits))
    with pytest.raises(ModelError, match="its card has 3 classes"):
        classifier.classify([paint(40, 40)])


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_box_that_is_no_number_takes_no_other_with_it(wrong):
    found = decode(rows([(wrong, 0, 10, 10), (0, 0, 10, 10)]), scores([0.9, 0.8]), 0.25, 0.45)
    assert found.boxes.tolist() == [[0, 0, 10, 10]]
