"""The synthetic camera: any frame at any time, always the same, with boxes that fit."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from derma_common.drawn.camera import SyntheticCamera, clip_polygon, polygon_area, visible_box

SQUARE = np.asarray([[0, 0], [10, 0], [10, 10], [0, 10]], np.float32)


@pytest.fixture(scope="module")
def camera():
    return SyntheticCamera(4, 120, 320, 240, lesions=9)


def test_a_frame_is_the_same_whenever_and_by_whomever_it_is_asked_for(camera):
    later = camera.frame(90)
    other = SyntheticCamera(4, 120, 320, 240, lesions=9)
    for i in (5, 90):
        image, boxes, kinds = other.frame(i)
        assert image.shape == (240, 320, 3) and image.dtype == np.uint8
        assert np.array_equal(image, camera.frame(i)[0]) and np.array_equal(boxes, camera.frame(i)[1])
        assert len(boxes) == len(kinds)
    assert np.array_equal(later[0], other.frame(90)[0])
    assert not np.array_equal(camera.frame(5)[0], camera.frame(6)[0])
    assert not np.array_equal(SyntheticCamera(5, 120, 320, 240).frame(5)[0], camera.frame(5)[0])


@pytest.mark.parametrize("i", [0, 17, 44, 71, 119])
def test_boxes_bound_the_pixels_of_the_moved_lesions(camera, i):
    boxes, indices = camera.frame_lesions(i)
    for box, n in zip(boxes, indices, strict=True):
        mask = np.zeros(camera.scene.image.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.round(camera.scene.lesions[n].outline).astype(np.int32)], 255)
        ys, xs = np.nonzero(cv2.warpAffine(mask, camera.pose(i), (320, 240)) > 127)
        assert box == pytest.approx([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], abs=2.0)


def test_boxes_are_float32_inside_the_frame_and_lesions_come_and_go(camera):
    seen = set()
    for i in range(120):
        boxes, indices = camera.frame_lesions(i)
        assert boxes.dtype == np.float32 and boxes.shape == (len(indices), 4)
        assert np.all(boxes[:, :2] >= 0) and np.all(boxes[:, 2:] <= (320, 240)) and np.all(boxes[:, :2] < boxes[:, 2:])
        seen.add(indices)
    assert len(seen) > 2


def test_the_camera_moves_smoothly(camera):
    centres = [np.linalg.inv(camera.pose(i)[:, :2]) @ ((160, 120) - camera.pose(i)[:, 2]) for i in range(120)]
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    assert steps.max() < 0.05 * 320 and steps.mean() > 0.2


def test_blurred_moments_take_sharpness_from_some_frames_only():
    plain, moved = (SyntheticCamera(4, 120, 320, 240, noise=0, blurred_moments=b) for b in (False, True))
    same = [np.array_equal(plain.image(i), moved.image(i)) for i in range(120)]
    assert 40 < sum(same) < 115


def test_frames_outside_the_recording_and_senseless_sizes_are_refused(camera):
    for i in (-1, 120):
        with pytest.raises(IndexError, match="recording of 120"):
            camera.frame(i)
    with pytest.raises(ValueError, match="frames >= 1"):
        SyntheticCamera(1, 0)
    one = SyntheticCamera(1, 1, 64, 48, lesions=0, blurred_moments=True)
    assert one.frame(0)[1].shape == (0, 4)


def test_a_lesion_has_a_box_while_forty_percent_of_it_are_in_the_frame():
    assert visible_box(SQUARE + 20, 100, 100) == (20, 20, 30, 30)
    assert visible_box(SQUARE - (5, 0), 100, 100) == (0, 0, 5, 10)
    assert visible_box(SQUARE - (6.5, 0), 100, 100) is None
    assert visible_box(SQUARE - (50, 0), 100, 100) is None
    # the share is of the outline's area, not of its box: a triangle's tip is little of it
    triangle = np.asarray([[-6, 0], [4, 5], [-6, 10]], np.float32)
    assert visible_box(triangle, 100, 100) is None


def test_a_polygon_is_clipped_exactly():
    corner = clip_polygon(SQUARE - (4, 3), 100, 100)
    assert polygon_area(corner) == pytest.approx(6 * 7)
    assert polygon_area(clip_polygon(SQUARE * 20 - (50, 50), 100, 100)) == pytest.approx(100 * 100)
    assert len(clip_polygon(SQUARE - (50, 0), 100, 100)) == 0
