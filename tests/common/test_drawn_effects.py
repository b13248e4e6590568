"""What is laid on drawn skin: where it lies, what it leaves alone, and that a seed draws it again."""

from __future__ import annotations

import numpy as np
import pytest

from derma_common.drawn import effects

LAID = {
    "pores": lambda rng, image: effects.pores(rng, image, 8.0),
    "folds": lambda rng, image: effects.folds(rng, image, 8.0),
    "shine": lambda rng, image: effects.shine(rng, image, 8.0),
    "shadow": effects.shadow,
    "cloth": effects.cloth,
    "ink": lambda rng, image: effects.ink(rng, image, 8.0),
    "plaster": lambda rng, image: effects.plaster(rng, image, 3.0),
}
COVERING = ("cloth", "ink", "plaster")


def skin(level=150):
    return np.full((160, 200, 3), level, np.uint8)


def laid(name, seed, image=None):
    return LAID[name](np.random.default_rng(seed), skin() if image is None else image)


@pytest.mark.parametrize("name", LAID)
def test_an_effect_is_drawn_again_by_its_seed_and_leaves_what_it_was_given(name):
    given = skin()
    first, again = laid(name, 3, given), laid(name, 3, given)
    one, two = (found[0] if isinstance(found, tuple) else found for found in (first, again))
    assert one.shape == given.shape and one.dtype == np.uint8
    assert np.array_equal(one, two) and np.all(given == 150)
    others = [laid(name, seed) for seed in range(8)]
    changed = [np.any((found[0] if isinstance(found, tuple) else found) != given) for found in others]
    assert sum(changed) >= 6


@pytest.mark.parametrize("name", COVERING)
@pytest.mark.parametrize("seed", range(6))
def test_a_cover_says_where_the_skin_is_hidden(name, seed):
    image, cover = laid(name, seed)
    assert cover.shape == image.shape[:2] and cover.dtype == np.uint8
    bare = cover == 0
    if name == "cloth":  # beside its hem lies its shadow
        assert np.all(image[bare] <= 150)
    else:
        assert np.all(image[bare] == 150)


def test_pores_folds_and_shadows_only_darken_and_shine_only_brightens():
    for seed in range(6):
        assert laid("pores", seed).max() <= 150 and laid("shadow", seed).max() <= 150
        assert laid("shine", seed).min() >= 150
        folded = laid("folds", seed).astype(int)
        assert folded.min() < 150 and folded.max() <= 150 * 1.2


def test_pores_are_finer_from_afar():
    rng = np.random.default_rng(0)
    near = effects.pores(rng, skin(), 16.0).astype(float).std()
    far = effects.pores(rng, skin(), 2.0).astype(float).std()
    assert near > 2 * far


def test_jpeg_loses_more_at_lower_quality():
    noisy = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    loss = [np.abs(effects.jpeg(noisy, quality).astype(int) - noisy).mean() for quality in (20, 60, 95)]
    assert loss == sorted(loss, reverse=True) and effects.jpeg(noisy, 50).shape == noisy.shape
