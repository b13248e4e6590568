"""Borders around the skin: what is cut, what is left alone, and where a lesion's box goes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_training.classifier.prepare.borders import (
    SHAVE_PX,
    inside_ring,
    trim_and_shave,
    whole,
    without_text_strip,
)
from derma_training.classifier.prepare.cleaning import fitted, moved_box


def skin(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(120, 220, (height, width, 3), dtype=np.uint8)


def bordered(left: int, top: int, right: int, bottom: int, shade: int = 0) -> np.ndarray:
    """A picture of 100 × 80 px of skin inside a border of one shade."""
    borders = (top, bottom, left, right)
    return np.asarray(cv2.copyMakeBorder(skin(80, 100), *borders, cv2.BORDER_CONSTANT, value=(shade,) * 3))


@given(st.tuples(*[st.integers(0, 30)] * 4), st.sampled_from([0, 3, 255]))
def test_a_uniform_border_goes_and_seven_pixels_with_it(sides: tuple[int, int, int, int], shade: int) -> None:
    left, top, right, bottom = sides
    image = bordered(left, top, right, bottom, shade)
    cut = trim_and_shave(image)
    if min(sides) > 0:
        assert cut == (left + SHAVE_PX, top + SHAVE_PX, left + 100 - SHAVE_PX, top + 80 - SHAVE_PX)
    else:  # a corner of skin says nothing of the borders that do not meet it
        assert cut[0] >= SHAVE_PX and cut[1] >= SHAVE_PX and cut[2] > cut[0] and cut[3] > cut[1]


@pytest.mark.skipif(not shutil.which("mogrify"), reason="needs ImageMagick")
def test_trimming_is_imagemagicks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(12):
        left, top, right, bottom = (int(n) for n in rng.integers(0, 15, 4))
        clean = bordered(left, top, right, bottom, shade=(0, 2, 250)[i % 3]).astype(int)
        pictures.append(np.clip(clean + rng.integers(-3, 4, clean.shape), 0, 255).astype(np.uint8))
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), pictures[-1])
    command = ["mogrify", "-fuzz", "5%", "-bordercolor", "black", "-trim", "+repage", "-shave", "7x7"]
    subprocess.run([*command, *sorted(str(p) for p in tmp_path.iterdir())], check=True, timeout=60)
    for i, picture in enumerate(pictures):
        x1, y1, x2, y2 = trim_and_shave(picture)
        assert np.array_equal(cv2.imread(str(tmp_path / f"{i:02}.png")), picture[y1:y2, x1:x2])


def test_a_border_beyond_the_fuzz_is_kept() -> None:
    image = bordered(20, 20, 20, 20)
    image[:10] = 14  # root mean square distance from the black corner: 14 > 12.75, so it is not of the border
    image[0, 0] = image[0, -1] = image[-1, 0] = 0
    assert trim_and_shave(image)[1] == SHAVE_PX


def test_a_picture_of_one_colour_is_left_alone() -> None:
    flat = np.full((40, 50, 3), 90, np.uint8)
    assert trim_and_shave(flat) == whole(flat) == (0, 0, 50, 40)
    assert trim_and_shave(skin(10, 12)) == (0, 0, 12, 10), "too small to be shaved"


def test_the_text_strip_below_goes() -> None:
    assert without_text_strip(skin(300, 400)) == (7, 7, 393, 223)


def ring(radius: float, centre: tuple[int, int] = (160, 120)) -> np.ndarray:
    image = np.full((240, 320, 3), 4, np.uint8)
    disc = cv2.circle(np.zeros((240, 320), np.uint8), centre, round(radius), 255, -1) > 0
    image[disc] = skin(240, 320)[disc]
    return image


@pytest.mark.parametrize("radius", [60, 80, 100])
def test_a_black_ring_is_cut_to_the_square_of_nine_tenths_of_its_radius(radius: int) -> None:
    x1, y1, x2, y2 = inside_ring(ring(radius))
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((160, 120), abs=1.5)
    assert (x2 - x1) / 2 == pytest.approx(0.9 * radius, abs=4)  # smoothing moves the ring's edge out by 3 px
    assert x2 - x1 == pytest.approx(y2 - y1, abs=1)


def test_a_picture_without_a_ring_is_left_alone() -> None:
    assert inside_ring(skin(240, 320)) == (0, 0, 320, 240)
    dark = skin(240, 320)
    cv2.circle(dark, (160, 120), 50, (20, 20, 20), -1)  # a dark lesion is no ring
    assert inside_ring(dark) == (0, 0, 320, 240)


def test_a_ring_that_would_be_cut_outside_the_picture_is_left_alone() -> None:
    assert inside_ring(ring(110, centre=(20, 120))) == (0, 0, 320, 240)


def test_a_picture_is_only_ever_shrunk_and_keeps_its_shape() -> None:
    assert fitted(skin(300, 400), 200).shape == (150, 200, 3)
    assert fitted(skin(300, 400), 400).shape == fitted(skin(300, 400), 900).shape == (300, 400, 3)
    assert fitted(skin(2, 400), 100).shape == (1, 100, 3)


def test_a_lesions_box_follows_the_cut() -> None:
    image = skin(100, 200)
    assert moved_box((0.25, 0.5, 0.75, 0.9), image, (50, 0, 150, 100)) == pytest.approx((0.0, 0.5, 1.0, 0.9))
    assert moved_box((0.0, 0.0, 0.1, 0.1), image, (50, 50, 150, 100)) is None
