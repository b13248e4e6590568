"""Drawn skin: the same numbers give the same picture, and a box says where the paint is."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from derma_common.drawn import skin
from derma_common.drawn.lesions import KINDS, DrawnLesion, draw_outline, paint
from derma_common.drawn.photography import defocus, motion_blur, photograph, sensor_noise, white_balance
from derma_common.drawn.scene import MIN_DIAMETER_PX, draw_skin


def scene(seed, **wishes):
    return draw_skin(np.random.default_rng(seed), 320, 240, **wishes)


def test_the_same_seed_draws_the_same_scene_and_another_seed_another():
    first, again, other = scene(1), scene(1), scene(2)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.image, other.image)


def test_a_scene_has_the_picture_and_the_lesions_that_were_asked_for():
    drawn = scene(3, lesions=4, kinds=("nevus", "vascular"))
    assert drawn.image.shape == (240, 320, 3) and drawn.image.dtype == np.uint8
    assert [lesion.kind for lesion in drawn.lesions] == ["nevus", "vascular", "nevus", "vascular"]
    assert drawn.boxes.shape == (4, 4) and drawn.boxes.dtype == np.float32
    assert scene(3, lesions=0).boxes.shape == (0, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("diameter", [9.0, 60.0])
def test_a_lesion_changes_pixels_inside_its_box_and_nowhere_else(kind, diameter):
    rng = np.random.default_rng(5)
    bare = skin.bare(rng, 120, 140, 6.0)
    painted = copy.deepcopy(bare)
    lesion = DrawnLesion(kind, draw_outline(rng, kind, (70.3, 58.8), diameter))
    paint(rng, painted, lesion)
    tone = skin.tone(2.0)
    changed = np.abs(skin.compose(painted, tone).astype(int) - skin.compose(bare, tone)).max(axis=2) > 2
    ys, xs = np.nonzero(changed)
    x1, y1, x2, y2 = lesion.box
    assert xs.min() >= np.floor(x1) - 1 and xs.max() + 1 <= np.ceil(x2) + 1
    assert ys.min() >= np.floor(y1) - 1 and ys.max() + 1 <= np.ceil(y2) + 1
    slack = max(2.0, 0.12 * diameter)  # the soft rim is fainter than the threshold
    assert xs.min() <= x1 + slack and xs.max() + 1 >= x2 - slack
    assert ys.min() <= y1 + slack and ys.max() + 1 >= y2 - slack


@pytest.mark.parametrize("seed", range(6))
def test_lesions_lie_inside_the_picture_are_large_enough_and_do_not_touch(seed):
    drawn = scene(seed, lesions=6, px_per_mm=4.0)
    for lesion in drawn.lesions:
        x1, y1, x2, y2 = lesion.box
        assert x1 >= 0 and y1 >= 0 and x2 <= 320 and y2 <= 240
        assert max(x2 - x1, y2 - y1) >= 0.75 * MIN_DIAMETER_PX
    boxes = drawn.boxes
    for i in range(len(boxes)):
        for j in range(i):
            apart_x = boxes[i, 0] >= boxes[j, 2] or boxes[j, 0] >= boxes[i, 2]
            apart_y = boxes[i, 1] >= boxes[j, 3] or boxes[j, 1] >= boxes[i, 3]
            assert apart_x or apart_y


def test_skin_darkens_from_fitzpatrick_type_one_to_six():
    levels = [scene(7, lesions=0, fitzpatrick=t, background=False).image.mean() for t in (1, 2, 3, 4, 5, 6)]
    assert levels == sorted(levels, reverse=True)
    assert skin.tone(2.5)[1] == pytest.approx((skin.tone(2)[1] + skin.tone(3)[1]) / 2)


def test_blurs_keep_the_mean_and_take_contrast_and_none_of_them_moves_the_picture():
    image = np.zeros((41, 41, 3), np.uint8)
    image[20, 20] = 255
    for blurred in (defocus(image, 3.0), motion_blur(image, 8.0, 4.0)):
        ys, xs = np.nonzero(blurred[..., 0])
        assert blurred.max() < 60
        assert abs(xs.mean() - 20) <= 0.5 and abs(ys.mean() - 20) <= 0.5
    assert defocus(image, 0.2) is image and motion_blur(image, 0.3, 0.3) is image


def test_white_balance_scales_channels_and_noise_has_the_asked_deviation():
    grey = np.full((64, 64, 3), 100, np.uint8)
    assert white_balance(grey, 0.5, 1.0, 3.0)[0, 0].tolist() == [50, 100, 255]
    noisy = sensor_noise(np.random.default_rng(0), grey, 4.0)
    assert noisy.mean() == pytest.approx(100, abs=0.3) and noisy.std() == pytest.approx(4.0, rel=0.1)
    assert np.array_equal(photograph(np.random.default_rng(1), grey), photograph(np.random.default_rng(1), grey))
