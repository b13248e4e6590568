"""Training crops and unknowns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from derma_common.preprocess import CROP_MARGIN, cut, square_around
from derma_training.classifier.augment import (
    augment,
    cutout,
    dihedral,
    evaluation_crop,
    moved_inside,
    random_square,
    relight,
    rotate,
)
from derma_training.classifier.manifest import CLASSES
from derma_training.classifier.unknowns import DRAWERS, HELD_OUT_KINDS, drawn, free_squares

BOX = (60.0, 70.0, 120.0, 150.0)


def canvas(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (224, 224, 3), dtype=np.uint8)


@pytest.mark.parametrize("box", [None, BOX, (0.0, 0.0, 224.0, 224.0), (200.0, 0.0, 224.0, 10.0)])
def test_a_crop_has_the_size_asked_for_wherever_the_lesion_lies(box: tuple[float, float, float, float] | None) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        crop = augment(canvas(), box, 96, rng)
        assert crop.shape == (96, 96, 3) and crop.dtype == np.uint8


def test_the_same_seed_gives_the_same_crop() -> None:
    crops = [augment(canvas(), BOX, 64, np.random.default_rng(7)) for _ in range(2)]
    assert np.array_equal(*crops)


def test_the_picture_itself_stays_as_it_was() -> None:
    picture = canvas()
    augment(picture, BOX, 64, np.random.default_rng(1))
    assert np.array_equal(picture, canvas())


def test_the_measured_crop_is_the_pipelines() -> None:
    found = evaluation_crop(canvas(), BOX, 96, boxed=True)
    assert np.array_equal(found, cut(canvas(), square_around(BOX, CROP_MARGIN), 96))
    assert np.array_equal(evaluation_crop(canvas(), BOX, 224, boxed=False), canvas())


def test_the_eight_symmetries_differ() -> None:
    assert len({dihedral(canvas(), k).tobytes() for k in range(8)}) == 8


def test_a_square_over_the_edge_is_moved_inside() -> None:
    assert moved_inside((-10, 200, 40, 250), 224, 224) == (0, 174, 50, 224)
    assert moved_inside((-50, -50, 300, 300), 224, 160) == (0, 0, 160, 160)


def test_a_random_square_meets_the_picture() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        x1, y1, x2, y2 = random_square(224, BOX, rng)
        assert x2 - x1 == y2 - y1 > 0 and x2 > 0 and y2 > 0 and x1 < 224 and y1 < 224


def test_light_moves_every_channel_monotonically() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    for seed in range(20):
        changed = relight(ramp, np.random.default_rng(seed)).astype(int)
        assert (np.diff(changed, axis=1) >= 0).all()


def test_cutout_and_rotation_keep_the_shape() -> None:
    small = canvas()[:64, :64]
    covered = cutout(small, np.random.default_rng(0), 16)
    assert covered.shape == small.shape and 0 < (covered != small).any(axis=2).sum() <= 256
    assert rotate(small, 30.0, 1.05).shape == small.shape


def test_held_out_kinds_of_unknown_are_never_trained_on() -> None:
    pictures = list(drawn(np.random.default_rng(0), each=12))
    assert {p.kind for p in pictures} == set(DRAWERS)
    for picture in pictures:
        assert picture.image.shape == (224, 224, 3) and picture.image.dtype == np.uint8
        assert (picture.part == "test") == (picture.kind in HELD_OUT_KINDS)


def test_patches_of_bare_skin_touch_no_spot() -> None:
    tile = np.zeros((400, 600, 3), np.uint8)
    spots = [[100.0, 100.0, 140.0, 160.0], [400.0, 50.0, 420.0, 60.0]]
    squares = free_squares(tile, spots, np.random.default_rng(0), wanted=15)
    assert len(squares) == 15
    inside = np.zeros((400, 600), bool)
    for x1, y1, x2, y2 in squares:
        inside[y1:y2, x1:x2] = True
    assert not inside[100:160, 100:140].any() and not inside[50:60, 400:420].any()


def test_unk_is_the_last_of_the_nine_classes() -> None:
    assert len(CLASSES) == 9 and CLASSES[-1] == "UNK"


def test_no_module_names_a_path_of_one_machine() -> None:
    import derma_training

    for file in Path(derma_training.__file__).parent.glob("classifier*.py"):
        assert "/work" not in file.read_text(encoding="utf-8")
