"""The training pictures of each recipe: from a picture and its lesion box to (size, size, 3) uint8 BGR."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from derma_common.preprocess import Image, cut, resize, square_around
from derma_training.classifier.augment.geometry import (
    Matrix,
    about,
    dihedral,
    reflected_to_square,
    rotation,
    scaling,
    shear,
    shift,
    turned,
    warp,
)
from derma_training.classifier.augment.pixels import cutout, relight, saturate, soften
from derma_training.classifier.crops import Square, in_px, moved_inside
from derma_training.classifier.tables import Box

Augmentation = Callable[[Image, Box | None, int, np.random.Generator], Image]

# Steppan & Hanke's call of fastai 1: get_transforms(max_rotate=45, max_zoom=1.05, max_lighting=0.2, p_affine=0.5, …)
MAX_ROTATE_DEG, MAX_ZOOM, MAX_LIGHTING, CHANCE = 45.0, 1.05, 0.2, 0.5
CUTOUT_PX = 16
# the paper names shear and translation without a bound and its code does neither: these bounds are ours
MAX_SHEAR, MAX_SHIFT = 0.1, 0.05

CLOSE_SHARE = 0.6  # derma: of the draws of a picture with a box: a crop as the pipeline cuts it
MARGIN_RANGE = (0.08, 0.5)  # around CROP_MARGIN: detectors box tightly or loosely
CONTEXT_MARGIN = 0.6  # what else is shown of a picture with a box lies within this margin
SOFT_RANGE = (0.35, 0.8)
GREY = 128


def derma(
    image: Image,
    box: Box | None,
    size: int,
    rng: np.random.Generator,
    turn_chance: float = 0.5,
    cover_chance: float = 0.5,
) -> Image:
    """Cut as the pipeline does, with the errors of a detector, then vary what cameras and light vary."""
    crop = cut(image, random_square(image, box, rng), size)
    crop = dihedral(crop, int(rng.integers(8)))
    if rng.random() < turn_chance:
        middle = (size - 1) / 2.0
        crop = warp(crop, about(rotation(rng.uniform(-45, 45)) @ scaling(rng.uniform(1.0, 1.1)), middle, middle))
    if rng.random() < 0.15:
        crop = soften(crop, rng.uniform(*SOFT_RANGE))
    brightness = rng.uniform(0.35, 0.65) if rng.random() < 0.5 else 0.5
    contrast = float(np.exp(rng.uniform(np.log(0.8), np.log(1.25)))) if rng.random() < 0.5 else 1.0
    gains = tuple(rng.uniform(0.9, 1.1, 3)) if rng.random() < 0.5 else (1.0,) * 3
    crop = relight(crop, brightness, contrast, gains)
    if rng.random() < 0.3:
        crop = saturate(crop, rng.uniform(0.6, 1.4))
    return cutout(crop, rng, size // 6, GREY) if rng.random() < cover_chance else crop


def random_square(image: Image, box: Box | None, rng: np.random.Generator) -> Square:
    """Return a square (x1, y1, x2, y2) px: around the box with a jittered margin, or anywhere near it."""
    height, width = image.shape[:2]
    if box is None:
        return _inner_square((0, 0, width, height), rng)
    lesion = in_px(box, width, height)
    if rng.random() < CLOSE_SHARE:
        square = square_around(jittered(lesion, rng), rng.uniform(*MARGIN_RANGE))
        return square if rng.random() < 0.5 else moved_inside(square, width, height)
    return _inner_square(moved_inside(square_around(lesion, CONTEXT_MARGIN), width, height), rng)


def _inner_square(within: Square, rng: np.random.Generator) -> Square:
    """Return a square of 0.6 to 1 of the shorter side of the rectangle `within`, anywhere in it."""
    width, height = within[2] - within[0], within[3] - within[1]
    edge = max(1, round(min(width, height) * rng.uniform(0.6, 1.0)))
    left = within[0] + int(rng.integers(0, width - edge + 1))
    top = within[1] + int(rng.integers(0, height - edge + 1))
    return left, top, left + edge, top + edge


def jittered(box: Box, rng: np.random.Generator) -> Box:
    """Move each edge of a box by up to a tenth of its longer side, as a detector might."""
    reach = 0.1 * max(box[2] - box[0], box[3] - box[1])
    x1, y1, x2, y2 = (v + d for v, d in zip(box, rng.uniform(-reach, reach, 4), strict=True))
    return x1, y1, x2, y2


def steppan(image: Image, box: Box | None, size: int, rng: np.random.Generator) -> Image:
    """Augment the whole picture as Steppan & Hanke 2021: long side = size, mirrored to a square. The box is unused."""
    scale = size / max(image.shape[:2])
    shape = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small = np.asarray(cv2.resize(image, shape, interpolation=_method(scale)), dtype=np.uint8)
    small = dihedral(small, int(rng.integers(8)))
    small = warp(small, _steppan_affine(small.shape[1], small.shape[0], rng))
    brightness = 0.5 + (rng.uniform(-0.5, 0.5) * MAX_LIGHTING if rng.random() < CHANCE else 0.0)
    reach = np.log(1.0 - MAX_LIGHTING)
    contrast = float(np.exp(rng.uniform(reach, -reach))) if rng.random() < CHANCE else 1.0
    small = relight(small, brightness, contrast)
    if rng.random() < CHANCE:
        small = cutout(small, rng, CUTOUT_PX, value=0)
    return reflected_to_square(small)


def _steppan_affine(width: int, height: int, rng: np.random.Generator) -> Matrix:
    """Draw rotation, zoom about a random point, shear and shift, each with chance ½, of a picture of width × height."""
    centre = ((width - 1) / 2.0, (height - 1) / 2.0)
    matrix = np.eye(3)
    if rng.random() < CHANCE:
        matrix = about(rotation(rng.uniform(-MAX_ROTATE_DEG, MAX_ROTATE_DEG)), *centre) @ matrix
    if rng.random() < CHANCE:
        x, y = rng.uniform(0.0, 1.0, 2) * (width - 1, height - 1)
        matrix = about(scaling(rng.uniform(1.0, MAX_ZOOM)), float(x), float(y)) @ matrix
    if rng.random() < CHANCE:
        matrix = about(shear(rng.uniform(-MAX_SHEAR, MAX_SHEAR)), *centre) @ matrix
    if rng.random() < CHANCE:
        x, y = rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * (width, height)
        matrix = shift(float(x), float(y)) @ matrix
    return matrix


def esteva(image: Image, box: Box | None, size: int, rng: np.random.Generator) -> Image:
    """Turn the whole picture by 0–359°, keep the largest upright rectangle, mirror half of them (Esteva et al.)."""
    scale = 2.0 * size / min(image.shape[:2])
    if scale < 1.0:  # nothing of what is shrunk away here would reach the network
        shape = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        image = np.asarray(cv2.resize(image, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    inner = turned(image, float(rng.uniform(0.0, 359.0)))
    return resize(np.ascontiguousarray(inner[::-1]) if rng.random() < 0.5 else inner, size)


def _method(scale: float) -> int:
    return cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR


AUGMENTATIONS: dict[str, Augmentation] = {
    "derma": derma,
    "derma-light": partial(derma, turn_chance=0.3, cover_chance=0.1),
    "steppan": steppan,
    "esteva": esteva,
}
