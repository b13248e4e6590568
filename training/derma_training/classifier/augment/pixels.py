"""Changing pictures (H, W, 3) uint8 BGR without moving them: light, colour, sharpness, a covered square."""

from __future__ import annotations

import cv2
import numpy as np

from derma_common.preprocess import Image


def relight(
    image: Image, brightness: float = 0.5, contrast: float = 1.0, gains: tuple[float, ...] = (1.0,) * 3
) -> Image:
    """Shift and stretch the values in logit space, as fastai 1 does, then multiply blue, green and red by `gains`.

    brightness: the new value of a mid grey, 0 … 1. contrast: factor on the logits.
    """
    values = np.linspace(0.5, 255.5, 256) / 256.0
    logits = (np.log(values / (1.0 - values)) + np.log(brightness / (1.0 - brightness))) * contrast
    curve = 255.0 / (1.0 + np.exp(-logits))
    table = np.clip(curve[:, None] * np.asarray(gains), 0.0, 255.0).round().astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), dtype=np.uint8)


def saturate(image: Image, factor: float) -> Image:
    """Multiply each pixel's distance from its grey by a factor: 0 makes the picture grey, 1 leaves it."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return np.asarray(cv2.addWeighted(image, factor, grey, 1.0 - factor, 0.0), dtype=np.uint8)


def soften(image: Image, scale: float) -> Image:
    """Shrink a picture to `scale` of its size and enlarge it again: far away, or out of focus."""
    height, width = image.shape[:2]
    small = cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def cutout(image: Image, rng: np.random.Generator, side: int, value: int) -> Image:
    """Cover one square of side px, its centre anywhere in the picture (DeVries and Taylor 2017)."""
    height, width = image.shape[:2]
    x, y = int(rng.integers(width)) - side // 2, int(rng.integers(height)) - side // 2
    covered = image.copy()
    covered[max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)] = value
    return covered
