"""Fitting, cutting and normalising pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.preprocess import LETTERBOX_GREY, cut, letterbox, resize, softmax, square_around, to_tensor

SIZES = st.integers(1, 90)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(SIZES, SIZES, st.integers(8, 80), st.integers(8, 80))
def test_a_letterboxed_picture_is_the_resized_one_on_grey(height, width, into_height, into_width):
    image = picture(height, width)
    fitted, placed = letterbox(image, into_width, into_height)
    inner_w = min(into_width, max(1, round(width * placed.scale)))
    inner_h = min(into_height, max(1, round(height * placed.scale)))
    expected = np.full((into_height, into_width, 3), LETTERBOX_GREY, dtype=np.uint8)
    x, y = placed.left_px, placed.top_px
    expected[y : y + inner_h, x : x + inner_w] = cv2.resize(image, (inner_w, inner_h))
    np.testing.assert_array_equal(fitted, expected)


@given(SIZES, SIZES, st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_box_comes_back_from_the_letterbox(height, width, corners):
    _, placed = letterbox(picture(height, width), 64, 48)
    box = np.asarray([corners], dtype=np.float32) * [width, height, width, height]
    np.testing.assert_allclose(placed.to_frame(placed.to_input(box)), box, atol=1e-2)


@given(SIZES, SIZES)
def test_the_whole_picture_fills_the_letterbox_in_one_direction(height, width):
    _, placed = letterbox(picture(height, width), 64, 48)
    x1, y1, x2, y2 = placed.to_input(np.asarray([[0, 0, width, height]], dtype=np.float32))[0]
    assert max((x2 - x1) / 64, (y2 - y1) / 48) == pytest.approx(1, abs=1e-3)
    assert x1 >= 0
    assert y1 >= 0
    assert x2 <= 64.5
    assert y2 <= 48.5


@given(st.floats(-50, 500), st.floats(-50, 500), st.floats(0.5, 200), st.floats(0.5, 200), st.floats(0, 1))
def test_the_square_of_a_box_is_square_centred_and_has_its_margin(x, y, width, height, margin):
    x1, y1, x2, y2 = square_around((x, y, x + width, y + height), margin)
    side = max(width, height) * (1 + 2 * margin)
    assert x2 - x1 == y2 - y1
    assert x2 - x1 == pytest.approx(max(1, side), abs=0.51)
    assert (x1 + x2) / 2 == pytest.approx(x + width / 2, abs=1.01)
    assert (y1 + y2) / 2 == pytest.approx(y + height / 2, abs=1.01)


@given(st.integers(-30, 40), st.integers(-30, 30), st.integers(1, 60))
def test_a_square_over_the_edge_repeats_the_border(x, y, side):
    image = picture(30, 40)
    if x + side <= 0 or y + side <= 0 or x >= 40 or y >= 30:
        with pytest.raises(ValueError, match="outside"):
            cut(image, (x, y, x + side, y + side), side)
        return
    rows = np.clip(np.arange(y, y + side), 0, 29)
    columns = np.clip(np.arange(x, x + side), 0, 39)
    np.testing.assert_array_equal(cut(image, (x, y, x + side, y + side), side), image[rows][:, columns])


def test_cutting_leaves_the_picture_as_it_was():
    image = picture(30, 40)
    image.setflags(write=False)
    assert cut(image, (-5, -5, 20, 20), 16).shape == (16, 16, 3)


def test_shrinking_averages_over_areas():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    shrunk = resize(np.repeat(board[..., None], 3, axis=2).astype(np.uint8), 8)
    assert set(shrunk.ravel().tolist()) <= {127, 128}


def test_a_tensor_is_rgb_planes_normalised():
    image = np.empty((2, 3, 3), dtype=np.uint8)
    image[:] = (255, 51, 0)  # blue, green, red
    tensor = to_tensor([image, image], mean=(0.5, 0.0, 0.25), std=(0.5, 1.0, 0.25))
    assert tensor.shape == (2, 3, 2, 3)
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_allclose(tensor[1, :, 0, 0], [-1.0, 0.2, 3.0], atol=1e-6)


@given(st.lists(st.floats(-500, 500, width=32), min_size=1, max_size=9), st.floats(0.05, 20))
def test_probabilities_sum_to_one_and_keep_the_order_of_logits(logits, temperature):
    table = softmax(np.asarray([logits], dtype=np.float32), temperature)
    assert np.isfinite(table).all()
    assert table.sum() == pytest.approx(1, abs=1e-5)
    order = np.argsort(logits, kind="stable")
    assert (np.diff(table[0][order]) >= 0).all()


def test_a_higher_temperature_is_less_sure():
    logits = np.asarray([[2.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(softmax(logits, 2.0)[0, 0], 1 / (1 + np.exp(-1.0)), rtol=1e-6)
    assert softmax(logits, 2.0)[0, 0] < softmax(logits)[0, 0]


def test_no_crops_give_no_probabilities():
    assert softmax(np.empty((0, 3), dtype=np.float32)).shape == (0, 3)
