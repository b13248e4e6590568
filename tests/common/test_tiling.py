"""Tiles of wide pictures: they cover everything, and every lesion is reported once."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from derma_common.boxes import area
from derma_common.inference.card import InputSpec, ModelCard
from derma_common.inference.detection import Detections, Detector
from derma_common.inference.tiling import (
    OVERLAP,
    Rotation,
    auto_tile_px,
    detect_tiled,
    merge,
    tile_windows,
    windows_of,
)

SIDE = 128
SPEC = InputSpec("image", SIDE, SIDE)
SMALLEST_PX = 8  # of the network's input; what is smaller is not seen


class BrightSpots:
    """A runner that finds what is bright in its input, unless it is too small there; larger is surer."""

    def __init__(self):
        self.calls = 0

    def infer(self, inputs):
        self.calls += 1
        bright = (inputs["image"][0, 0] > 0.8).astype(np.uint8)
        _, _, found, _ = cv2.connectedComponentsWithStats(bright)
        spots = [(x, y, x + w, y + h) for x, y, w, h, _ in found[1:] if min(w, h) >= SMALLEST_PX]
        boxes = np.asarray(spots, np.float32).reshape(1, -1, 4)
        return {"boxes": boxes, "scores": (0.5 + area(boxes[0]) / (2 * SIDE**2))[None, :, None]}

    def close(self):
        """Free nothing."""


def bright_spots():
    card = ModelCard(
        "spots", "detector", "fake", "none", "0" * 64, SPEC, ("boxes", "scores"), ("lesion",), "none", runner="fake"
    )
    return Detector(card, BrightSpots())


def picture(boxes, width=500, height=400):
    image = np.full((height, width, 3), 60, np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 255
    return image


def detect(image, tile_px=SIDE, detector=None):
    windows = tile_windows(image.shape[1], image.shape[0], tile_px)
    return detect_tiled(detector or bright_spots(), image, windows)


SIZES = st.tuples(st.integers(1, 2000), st.integers(1, 2000), st.integers(64, 900))


@given(SIZES)
def test_tiles_lie_in_the_picture_cover_it_and_have_the_side_that_was_asked_for(size):
    width, height, tile_px = size
    windows = tile_windows(width, height, tile_px)
    assert (windows == []) == (max(width, height) <= tile_px)
    covered = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in windows:
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        assert (x2 - x1, y2 - y1) == (min(tile_px, width), min(tile_px, height))
        covered[y1:y2, x1:x2] = True
    assert covered.all() or not windows


@given(SIZES, st.floats(0, 1), st.floats(0, 1))
def test_what_is_smaller_than_the_overlap_is_whole_in_some_tile(size, across, down):
    width, height, tile_px = size
    side = int(OVERLAP * tile_px) - 1  # starts are rounded to whole px
    windows = tile_windows(width, height, tile_px)
    assume(windows and side < min(width, height))
    x, y = round(across * (width - side)), round(down * (height - side))
    assert any(x1 <= x and y1 <= y and x + side <= x2 and y + side <= y2 for x1, y1, x2, y2 in windows)


APART_PX = 4 * 500 // SIDE  # so that two are two in the whole picture as well, where they are some px apart


@given(
    st.lists(st.tuples(st.integers(0, 480), st.integers(0, 380), st.integers(8, 30), st.integers(8, 30)), max_size=12)
)
def test_every_small_lesion_is_found_once_wherever_it_lies(spots):
    boxes, taken = [], np.zeros((400, 500), bool)
    for x, y, w, h in spots:
        x2, y2 = min(500, x + w), min(400, y + h)
        around = taken[max(0, y - APART_PX) : y2 + APART_PX, max(0, x - APART_PX) : x2 + APART_PX]
        if min(x2 - x, y2 - y) >= 8 and not around.any():
            taken[y:y2, x:x2] = True
            boxes.append((x, y, x2, y2))
    found = detect(picture(boxes))
    assert sorted(map(tuple, found.boxes.astype(int).tolist())) == sorted(boxes)


def test_a_small_lesion_is_lost_in_the_whole_picture_and_found_in_tiles():
    image = picture([(300, 200, 312, 212)])
    assert len(bright_spots().detect(image)) == 0
    assert detect(image).boxes.tolist() == [[300, 200, 312, 212]]


@pytest.mark.parametrize("box", [(40, 40, 400, 300), (100, 90, 260, 250), (60, 60, 180, 170)])
def test_a_lesion_too_large_for_a_tile_is_found_once_and_whole(box):
    found = detect(picture([box]))
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes[0], box, atol=500 / SIDE)


@given(st.tuples(st.integers(0, 470), st.integers(0, 370)), st.integers(8, 400), st.floats(0.8, 1.25))
def test_one_lesion_of_any_size_anywhere_is_found_once(corner, side, shape):
    x, y = corner
    box = (x, y, min(500, x + side), min(400, y + round(side * shape)))
    assume(min(box[2] - x, box[3] - y) >= 8)
    found = detect(picture([box]))
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes[0], box, atol=500 / SIDE)


def test_no_part_of_a_lesion_that_a_tile_cuts_survives_beside_its_whole_twin():
    edge = tile_windows(500, 400, SIDE)[0][2]  # where the first tile ends
    box = (edge - 20, 30, edge + 8, 60)
    assert detect(picture([box])).boxes.tolist() == [list(box)]


def test_the_picture_alone_is_looked_at_when_there_are_no_tiles():
    detector = bright_spots()
    image = picture([(10, 10, 90, 90)])
    alone, plain = detect_tiled(detector, image, []), detector.detect(image)
    assert alone.boxes.tolist() == plain.boxes.tolist() and alone.scores.tolist() == plain.scores.tolist()


def test_a_tile_that_is_not_looked_at_adds_nothing_and_takes_nothing():
    image = picture([(20, 20, 60, 60), (420, 320, 460, 360)])  # both large enough for the whole picture
    windows = tile_windows(500, 400, SIDE)
    found = detect_tiled(bright_spots(), image, windows[:1])
    assert len(found) == 2
    assert [20, 20, 60, 60] in found.boxes.tolist()  # from the tile, which shows it best
    np.testing.assert_allclose(sorted(found.boxes.tolist())[1], [420, 320, 460, 360], atol=500 / SIDE)


def test_somebody_is_told_before_each_tile():
    told = []
    image = picture([])
    windows = tile_windows(500, 400, SIDE)
    detect_tiled(bright_spots(), image, windows, before_each=lambda: told.append(1))
    assert len(told) == len(windows) == 20


BOX = st.builds(
    lambda x, y, w, h: (x, y, x + w, y + h),
    st.integers(0, 60),
    st.integers(0, 60),
    st.integers(2, 40),
    st.integers(2, 40),
)
VIEW = st.lists(st.tuples(BOX, st.integers(1, 99)), max_size=6)


def views_of(drawn):
    ordered = [sorted(view, key=lambda pair: -pair[1]) for view in drawn]
    return [
        Detections(
            np.asarray([b for b, _ in v], np.float32).reshape(-1, 4), np.asarray([s / 100 for _, s in v], np.float32)
        )
        for v in ordered
    ]


@given(st.lists(VIEW, min_size=1, max_size=4))
def test_merging_keeps_the_best_drops_what_it_covers_and_orders_by_score(drawn):
    merged = merge(views_of(drawn), 0.45)
    every = [(tuple(map(float, box)), round(score / 100, 4)) for view in drawn for box, score in view]
    rows = [(tuple(box), round(float(s), 4)) for box, s in zip(merged.boxes.tolist(), merged.scores, strict=True)]
    assert set(rows) <= set(every) and (np.diff(merged.scores) <= 0).all()
    assert (len(rows) > 0) == (len(every) > 0)
    if every:
        assert rows[0][1] == max(score for _, score in every)


@given(VIEW)
def test_boxes_of_one_view_are_left_as_they_are(view):
    (one,) = views_of([view])
    assert merge([one], 0.45).boxes.tolist() == one.boxes.tolist()


@given(st.lists(VIEW, min_size=1, max_size=4), st.integers(1, 99))
def test_a_higher_threshold_only_takes_away_from_below(drawn, percent):
    """Hence a curve over all thresholds can be drawn from one run at a low one."""
    low, threshold = merge(views_of(drawn), 0.45), np.float32(percent / 100)
    high = merge(views_of([[pair for pair in view if np.float32(pair[1] / 100) > threshold] for view in drawn]), 0.45)
    above = low.scores > threshold
    assert high.boxes.tolist() == low.boxes[above].tolist()


def test_two_moles_side_by_side_in_one_tile_are_two_though_another_tile_sees_them_too():
    pair = np.asarray([[0, 0, 20, 20], [10, 0, 30, 20]], np.float32)
    one, other = (Detections(pair, np.asarray(s, np.float32)) for s in ([0.9, 0.8], [0.7, 0.6]))
    assert merge([one, other], 0.45).boxes.tolist() == pair.tolist()


def test_all_tiles_of_a_recording_are_looked_at_in_every_picture():
    rotation = Rotation(SPEC, SIDE)
    assert rotation.turn(500, 400) == rotation.turn(500, 400) == tile_windows(500, 400, SIDE)


@given(st.integers(1, 25))
def test_a_live_camera_is_looked_at_in_a_bounded_number_of_tiles_and_each_has_its_turn(at_once):
    rotation, windows = Rotation(SPEC, SIDE, at_once), tile_windows(500, 400, SIDE)
    turns = [rotation.turn(500, 400) for _ in range(-(-len(windows) // at_once))]
    assert all(len(turn) == min(at_once, len(windows)) for turn in turns)
    assert {window for turn in turns for window in turn} == set(windows)


def test_a_camera_that_changes_its_size_goes_on_with_the_tiles_of_the_new_one():
    rotation = Rotation(SPEC, SIDE, 2)
    for _ in range(9):
        rotation.turn(500, 400)
    assert set(rotation.turn(200, 150)) <= set(tile_windows(200, 150, SIDE))
    assert rotation.turn(100, 100) == [] and Rotation(SPEC, SIDE, 0).turn(500, 400) == []


@pytest.mark.parametrize(
    ("width", "height", "side"), [(300, 300, 0), (528, 400, 0), (1090, 890, 352), (890, 1090, 352), (3840, 2160, 960)]
)
def test_a_tile_side_is_chosen_for_a_picture_and_a_network(width, height, side):
    spec = InputSpec("image", 352, 352)
    assert auto_tile_px(width, height, spec) == side
    assert windows_of(width, height, "auto", spec) == (tile_windows(width, height, side) if side else [])
