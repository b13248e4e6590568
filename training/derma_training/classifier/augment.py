"""From a packed picture to a training crop: the pipeline's own cut, then what the papers vary.

Dihedral, rotation to ±45°, lighting in logit space and cutout as in Steppan & Hanke 2021
(arXiv 2101.03814); random squares instead of their small zoom, since the network learns from scratch.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.preprocess import CROP_MARGIN, Image, cut, square_around
from derma_training.classifier.manifest import Box

Square = tuple[int, int, int, int]

BOX_SHARE = 0.6  # of the draws of a picture with a box: a crop as the pipeline cuts it
MARGIN_RANGE = (0.08, 0.5)  # around CROP_MARGIN: detectors box tightly or loosely
LIGHT_GREY = 128


def augment(canvas: Image, box: Box | None, size: int, rng: np.random.Generator) -> Image:
    """Return one training crop (size, size, 3) uint8 BGR of canvas (H, W, 3) with its lesion box in px."""
    crop = cut(canvas, random_square(canvas.shape[0], box, rng), size)
    crop = dihedral(crop, int(rng.integers(8)))
    if rng.random() < 0.5:
        crop = rotate(crop, rng.uniform(-45, 45), rng.uniform(1.0, 1.1))
    crop = relight(crop, rng)
    if rng.random() < 0.5:
        crop = cutout(crop, rng, side=size // 6)
    return crop


def random_square(side: int, box: Box | None, rng: np.random.Generator) -> Square:
    """Return a square of a canvas of side × side px: around the box with a jittered margin, or anywhere."""
    if box is not None and rng.random() < BOX_SHARE:
        square = square_around(jittered(box, rng), rng.uniform(*MARGIN_RANGE))
        return square if rng.random() < 0.5 else moved_inside(square, side, side)
    edge = round(side * rng.uniform(0.6, 1.0))
    left, top = (int(v) for v in rng.integers(0, side - edge + 1, 2))
    return left, top, left + edge, top + edge


def jittered(box: Box, rng: np.random.Generator) -> Box:
    """Move each edge of a box by up to a tenth of its longer side, as a detector might."""
    reach = 0.1 * max(box[2] - box[0], box[3] - box[1])
    x1, y1, x2, y2 = (v + d for v, d in zip(box, rng.uniform(-reach, reach, 4), strict=True))
    return x1, y1, x2, y2


def moved_inside(square: Square, width: int, height: int) -> Square:
    """Shift, and shrink if it must be, a square so that it lies inside a picture of width × height px."""
    edge = min(square[2] - square[0], width, height)
    left = min(max(square[0], 0), width - edge)
    top = min(max(square[1], 0), height - edge)
    return left, top, left + edge, top + edge


def evaluation_crop(canvas: Image, box: Box | None, size: int, boxed: bool) -> Image:
    """Return what the network is measured on: the pipeline's crop around the box if `boxed`, else all of it."""
    square = square_around(box, CROP_MARGIN) if boxed and box is not None else (0, 0, *canvas.shape[:2])
    return cut(canvas, square, size)


def dihedral(image: Image, k: int) -> Image:
    """Return one of the eight symmetries of the square, k in 0..7."""
    turned = np.rot90(image, k % 4)
    return np.ascontiguousarray(turned[:, ::-1] if k >= 4 else turned)


def rotate(image: Image, degrees: float, zoom: float) -> Image:
    """Rotate and enlarge about the centre; the corners mirror the picture."""
    size = image.shape[0]
    turn = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), degrees, zoom)
    return np.asarray(cv2.warpAffine(image, turn, (size, size), borderMode=cv2.BORDER_REFLECT_101), dtype=np.uint8)


def relight(image: Image, rng: np.random.Generator) -> Image:
    """Vary brightness and contrast in logit space (each p = ½) and the colour of the light (p = ½)."""
    values = np.linspace(0.5, 255.5, 256) / 256.0
    logits = np.log(values / (1.0 - values))
    if rng.random() < 0.5:
        brightness = rng.uniform(0.35, 0.65)
        logits = logits + np.log(brightness / (1.0 - brightness))
    if rng.random() < 0.5:
        logits = logits * np.exp(rng.uniform(np.log(0.8), np.log(1.25)))
    curve = 255.0 / (1.0 + np.exp(-logits))
    gains = rng.uniform(0.9, 1.1, 3) if rng.random() < 0.5 else np.ones(3)
    table: npt.NDArray[np.uint8] = np.clip(curve[:, None] * gains, 0, 255).round().astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), dtype=np.uint8)


def cutout(image: Image, rng: np.random.Generator, side: int) -> Image:
    """Cover one square of side px with grey (DeVries and Taylor 2017)."""
    size = image.shape[0]
    x, y = (int(v) for v in rng.integers(-side // 2, size - side // 2, 2))
    covered = image.copy()
    covered[max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)] = LIGHT_GREY
    return covered
