"""Occlusion: the place that an answer comes from is the place that it loses by."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from derma_common.inference.explain import NOTABLE, PATCH_SHARE, occlusion, overlay, rim_colour

SIZE = 64


def spot(x, y, side=8):
    """Return a grey crop with a white square."""
    crop = np.full((SIZE, SIZE, 3), 90, dtype=np.uint8)
    crop[y : y + side, x : x + side] = 255
    return crop


def whiteness(crops):
    """Answer (N, 2): the share of a spot of 64 px that is seen, and the rest."""
    seen = np.asarray([(crop == 255).all(axis=2).sum() / 64 for crop in crops])
    return np.stack([seen, 1 - seen], axis=1)


@pytest.mark.parametrize(("x", "y"), [(0, 0), (56, 0), (0, 56), (56, 56), (28, 28), (10, 40)])
def test_the_map_is_hottest_on_what_the_answer_comes_from(x, y):
    heat = occlusion(whiteness, spot(x, y), target=0)
    peak_y, peak_x = np.unravel_index(int(heat.argmax()), heat.shape)
    reach = PATCH_SHARE * SIZE
    assert x - reach <= peak_x <= x + 8 + reach and y - reach <= peak_y <= y + 8 + reach
    assert heat.max() > 0.4
    far = np.hypot(*(np.indices(heat.shape) - np.asarray([[[y + 4]], [[x + 4]]]))) > 2 * reach
    np.testing.assert_allclose(heat[far], 0.0, atol=1e-12)


def test_what_one_class_loses_the_other_gains():
    np.testing.assert_allclose(
        occlusion(whiteness, spot(20, 20), 0), -occlusion(whiteness, spot(20, 20), 1), atol=1e-12
    )


def test_an_answer_that_looks_nowhere_gives_a_map_of_zeros_that_can_be_drawn():
    crop = spot(20, 20)
    heat = occlusion(lambda crops: np.full((len(crops), 3), 1 / 3), crop, target=1)
    assert not heat.any()
    assert overlay(crop, heat).shape == crop.shape


def test_the_cost_is_a_fixed_number_of_inferences():
    asked = []
    occlusion(lambda crops: asked.append(len(crops)) or np.ones((len(crops), 1)), spot(0, 0), target=0, steps=5)
    assert asked == [26]


def test_a_crop_is_covered_in_the_colour_of_its_rim():
    crop = spot(28, 28)
    crop[:4] = (10, 20, 30)  # a part of the rim, not most of it
    assert rim_colour(crop).tolist() == [90, 90, 90]


def test_the_overlay_is_red_where_the_loss_is_largest_and_blue_where_there_is_none():
    heat = np.zeros((SIZE, SIZE))
    heat[10:20, 10:20] = 0.3
    faint, _, _ = cv2.split(overlay(np.full((SIZE, SIZE, 3), 90, np.uint8), heat / 1000, NOTABLE))
    assert np.ptp(faint.astype(int)) <= 3, "a loss that is next to none is not painted"
    blue, _, red = cv2.split(overlay(np.full((SIZE, SIZE, 3), 90, np.uint8), heat))
    assert red[15, 15] > blue[15, 15] and blue[40, 40] > red[40, 40]
