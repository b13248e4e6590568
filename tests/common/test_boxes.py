"""Box arithmetic against loops, and suppression against OpenCV's."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.boxes import area, clip, iou, match, nms

SIDE = st.integers(1, 40)
BOX = st.tuples(st.integers(-10, 60), st.integers(-10, 60), SIDE, SIDE).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
BOXES = st.lists(BOX, max_size=12)


def rows(boxes):
    return np.asarray(boxes, dtype=np.float32).reshape(-1, 4)


def pixels(box):
    """Return the whole-numbered box as the set of its pixels."""
    x1, y1, x2, y2 = box
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


def overlap(a, b):
    return len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b))


@given(st.lists(BOX, max_size=4), st.lists(BOX, max_size=4))
def test_iou_counts_shared_pixels(a, b):
    table = iou(rows(a), rows(b))
    assert table.shape == (len(a), len(b))
    expected = [[overlap(x, y) for y in b] for x in a]
    np.testing.assert_allclose(table, np.reshape(expected, table.shape), atol=1e-6)


def test_an_inverted_box_has_no_area_and_overlaps_nothing():
    inverted = rows([(10, 10, 5, 5)])
    assert area(inverted)[0] == 0
    assert iou(inverted, rows([(0, 0, 20, 20)]))[0, 0] == 0


def brute_force_nms(boxes, scores, threshold):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@given(BOXES, st.sampled_from((0.0, 0.201, 0.451, 0.8, 1.0)), st.randoms(use_true_random=False))
def test_suppression_keeps_what_a_loop_keeps(boxes, threshold, random):
    scores = [(i + 1) / 100 for i in range(len(boxes))]
    random.shuffle(scores)
    kept = nms(rows(boxes), np.asarray(scores, dtype=np.float32), threshold)
    assert kept.tolist() == brute_force_nms(boxes, scores, threshold)


@given(
    st.lists(BOX, min_size=1, max_size=30), st.sampled_from((0.201, 0.451, 0.7001)), st.randoms(use_true_random=False)
)
def test_suppression_keeps_what_opencv_keeps(boxes, threshold, random):
    scores = [(i + 1) / 100 for i in range(len(boxes))]
    random.shuffle(scores)
    corners = [(x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in boxes]
    theirs = cv2.dnn.NMSBoxes(corners, scores, 0.0, threshold)
    ours = nms(rows(boxes), np.asarray(scores, dtype=np.float32), threshold)
    assert ours.tolist() == np.asarray(theirs).tolist()


def test_of_two_equal_boxes_with_equal_scores_the_earlier_is_kept():
    kept = nms(rows([(0, 0, 10, 10), (0, 0, 10, 10)]), np.asarray([0.5, 0.5], dtype=np.float32), 0.45)
    assert kept.tolist() == [0]


@given(BOXES)
def test_clipped_boxes_lie_in_the_picture_and_keep_what_was_inside(boxes):
    cut = clip(rows(boxes), 30, 20)
    assert (cut >= 0).all()
    assert (cut <= [30, 20, 30, 20]).all()
    picture = pixels((0, 0, 30, 20))
    for before, after in zip(boxes, cut.astype(int).tolist(), strict=True):
        assert pixels(after) == pixels(before) & picture


@given(BOXES, BOXES)
def test_matching_pairs_each_box_at_most_once_and_only_above_the_threshold(found, truth):
    pairs = match(rows(found), rows(truth), 0.5)
    assert len({i for i, _ in pairs}) == len(pairs) == len({j for _, j in pairs})
    assert all(overlap(found[i], truth[j]) >= 0.5 for i, j in pairs)
    left = set(range(len(truth))) - {j for _, j in pairs}
    unmatched = set(range(len(found))) - {i for i, _ in pairs}
    assert all(overlap(found[i], truth[j]) < 0.5 for i in unmatched for j in left)


@pytest.mark.parametrize(("found", "truth"), [([], [(0, 0, 5, 5)]), ([(0, 0, 5, 5)], []), ([], [])])
def test_nothing_matches_nothing(found, truth):
    assert match(rows(found), rows(truth)) == []
