"""Training pictures: geometry against brute force, pixels against closed forms, pipelines as wholes."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.preprocess import CROP_MARGIN, cut, square_around
from derma_training.classifier.augment.geometry import (
    about,
    dihedral,
    inscribed_rectangle,
    reflected_to_square,
    rotation,
    scaling,
    shear,
    shift,
    turned,
    warp,
)
from derma_training.classifier.augment.pipelines import AUGMENTATIONS, esteva, random_square, steppan
from derma_training.classifier.augment.pixels import cutout, relight, saturate, soften
from derma_training.classifier.crops import centre_square, evaluation_crop, moved_inside

BOX = (0.25, 0.3, 0.55, 0.7)


def canvas(height: int = 224, width: int = 224, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def fits(width: float, height: float, outer_width: float, outer_height: float, degrees: float) -> bool:
    """Tell whether an upright rectangle lies in a turned one: its corners, turned back, do."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(sx * width / 2, sy * height / 2) for sx in (-1, 1) for sy in (-1, 1)]
    back = [(c * x + s * y, -s * x + c * y) for x, y in corners]
    return all(abs(x) <= outer_width / 2 + 1e-9 and abs(y) <= outer_height / 2 + 1e-9 for x, y in back)


def largest_by_brute_force(width: float, height: float, degrees: float) -> float:
    """Return the area of the largest upright rectangle in a turned one: try shapes, then halve in on the scale."""
    best = 0.0
    for angle in np.linspace(1e-3, math.pi / 2 - 1e-3, 4000):
        w, h = math.cos(angle), math.sin(angle)
        c, s = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
        scale = min(width / (w * c + h * s), height / (w * s + h * c))
        best = max(best, scale * scale * w * h)
    return best


@given(st.floats(1.0, 5.0), st.floats(1.0, 5.0), st.floats(0.0, 359.0))
def test_the_inscribed_rectangle_is_the_largest_that_fits(width: float, height: float, degrees: float) -> None:
    w, h = inscribed_rectangle(width, height, degrees)
    assert fits(w * (1 - 1e-9), h * (1 - 1e-9), width, height, degrees)
    assert w * h == pytest.approx(largest_by_brute_force(width, height, degrees), rel=2e-3)


@pytest.mark.parametrize("degrees", [0.0, 30.0, 45.0, 90.0, 137.0, 180.0, 270.0, 359.0])
@pytest.mark.parametrize(("height", "width"), [(60, 60), (60, 90), (120, 40)])
def test_a_turned_picture_shows_nothing_but_the_picture(degrees: float, height: int, width: int) -> None:
    white = np.full((height, width, 3), 255, np.uint8)
    inner = turned(white, degrees)
    black = cv2.warpAffine(  # the same map, with black outside
        white,
        (shift((inner.shape[1] - 1) / 2, (inner.shape[0] - 1) / 2) @ rotation(degrees)
         @ shift(-(width - 1) / 2, -(height - 1) / 2))[:2],
        (inner.shape[1], inner.shape[0]),
    )  # fmt: skip
    assert (np.asarray(black)[1:-1, 1:-1] == 255).all()
    assert inner.shape[0] * inner.shape[1] >= 0.85 * np.prod(inscribed_rectangle(width, height, degrees))


def test_quarter_turns_are_exact() -> None:
    picture = canvas(40, 40)
    assert np.array_equal(turned(picture, 0.0), picture)
    assert np.array_equal(turned(picture, 180.0), picture[::-1, ::-1])


def test_the_eight_symmetries_differ_and_are_undone_by_their_inverse() -> None:
    assert len({dihedral(canvas(), k).tobytes() for k in range(8)}) == 8
    for k in range(8):
        inverse = k if k >= 4 else (4 - k) % 4
        assert np.array_equal(dihedral(dihedral(canvas(), k), inverse), canvas())


def test_affine_maps_move_points_as_they_say() -> None:
    point = np.asarray([3.0, 2.0, 1.0])
    assert (shift(1.0, -2.0) @ point)[:2] == pytest.approx((4.0, 0.0))
    assert (rotation(90.0) @ point)[:2] == pytest.approx((-2.0, 3.0))
    assert (shear(0.5) @ point)[:2] == pytest.approx((4.0, 2.0))
    assert (about(scaling(2.0), 3.0, 2.0) @ point)[:2] == pytest.approx((3.0, 2.0))
    picture = canvas(20, 30)
    assert np.array_equal(warp(picture, shift(4.0, 0.0))[:, 4:], picture[:, :-4])


def test_the_shorter_direction_is_mirrored_to_a_square() -> None:
    picture = canvas(4, 7)
    square = reflected_to_square(picture)
    assert square.shape == (7, 7, 3) and np.array_equal(square[1:5], picture)
    assert np.array_equal(square[0], picture[1]) and np.array_equal(square[5], picture[2])


def test_light_is_a_shift_and_a_stretch_in_logit_space() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.array_equal(relight(ramp), ramp)
    assert relight(np.full((1, 1, 3), 128, np.uint8), brightness=0.6)[0, 0, 0] == pytest.approx(0.6 * 255, abs=1)
    value = relight(np.full((1, 1, 3), 200, np.uint8), contrast=1.25)[0, 0, 0]
    odds = (200.5 / 55.5) ** 1.25
    assert value == pytest.approx(255 * odds / (1 + odds), abs=1)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        changed = relight(ramp, rng.uniform(0.4, 0.6), rng.uniform(0.8, 1.25)).astype(int)
        assert (np.diff(changed, axis=1) >= 0).all()


def test_colour_sharpness_and_a_covered_square() -> None:
    picture = canvas(30, 30)
    grey = saturate(picture, 0.0)
    assert (grey == grey[:, :, :1]).all() and np.array_equal(saturate(picture, 1.0), picture)
    assert soften(picture, 0.5).shape == picture.shape and soften(picture, 0.5).std() < picture.std()
    covered = cutout(np.full((40, 40, 3), 9, np.uint8), np.random.default_rng(0), side=8, value=0)
    assert 16 <= (covered == 0).all(axis=2).sum() <= 64 and covered.max() == 9


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
@pytest.mark.parametrize("box", [None, BOX, (0.0, 0.0, 1.0, 1.0), (0.9, 0.0, 1.0, 0.04)])
@pytest.mark.parametrize(("height", "width"), [(224, 224), (60, 130), (300, 17)])
def test_a_training_picture_has_the_size_asked_for(
    name: str, box: tuple[float, float, float, float] | None, height: int, width: int
) -> None:
    picture = canvas(height, width)
    rng = np.random.default_rng(0)
    for _ in range(8):
        crop = AUGMENTATIONS[name](picture, box, 64, rng)
        assert crop.shape == (64, 64, 3) and crop.dtype == np.uint8 and crop.flags.c_contiguous
    assert np.array_equal(picture, canvas(height, width)), "the picture itself stays as it was"


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_the_same_seed_gives_the_same_picture_and_another_another(name: str) -> None:
    crops = [AUGMENTATIONS[name](canvas(), BOX, 64, np.random.default_rng(seed)) for seed in (7, 7, 8)]
    assert np.array_equal(crops[0], crops[1]) and not np.array_equal(crops[0], crops[2])


def test_the_papers_use_the_whole_picture_and_every_angle() -> None:
    bright = np.zeros((80, 120, 3), np.uint8)
    bright[:, :60] = 255
    for augmentation in (steppan, esteva):
        means = [augmentation(bright, BOX, 48, np.random.default_rng(i)).mean() for i in range(30)]
        assert min(means) > 60 and max(means) < 195, "both halves are always seen"


def test_a_random_square_meets_the_picture_and_near_a_lesion_it_holds_some_of_it() -> None:
    rng = np.random.default_rng(2)
    picture = canvas(200, 300)
    for _ in range(300):
        x1, y1, x2, y2 = random_square(picture, None, rng)
        assert min(x1, y1) >= 0 and x2 <= 300 and y2 <= 200 and x2 - x1 == y2 - y1 >= 120
        x1, y1, x2, y2 = random_square(picture, (0.8, 0.8, 0.9, 0.95), rng)
        assert x2 - x1 == y2 - y1 and x1 < 270 and x2 > 240 and y1 < 190 and y2 > 160
        assert x2 - x1 < 80, "a small lesion is not shown as a speck"


def test_the_measured_crop_is_the_pipelines() -> None:
    box_px = (0.25 * 300, 0.3 * 200, 0.55 * 300, 0.7 * 200)
    picture = canvas(200, 300)
    found = evaluation_crop(picture, BOX, 96)
    assert np.array_equal(found, cut(picture, square_around(box_px, CROP_MARGIN), 96))
    assert np.array_equal(evaluation_crop(picture, None, 200), picture[:, 50:250])
    assert centre_square(300, 200) == (50, 0, 250, 200)


def test_a_square_over_the_edge_is_moved_inside() -> None:
    assert moved_inside((-10, 200, 40, 250), 224, 224) == (0, 174, 50, 224)
    assert moved_inside((-50, -50, 300, 300), 224, 160) == (0, 0, 160, 160)
