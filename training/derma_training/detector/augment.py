"""Training pictures from annotated ones: windows at a chance scale, mosaics, turns, colour and camera changes.

Mosaic: Bochkovskiy et al. 2020, §3.3. Everything random comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.boxes import Boxes, area, clip
from derma_common.preprocess import LETTERBOX_GREY, Image

VISIBLE_SHARE = 0.4  # a box cut down below this share is neither right nor wrong
MIN_SIDE_PX = 5.0  # and so is one that has become smaller than this
MOSAIC_CHANCE = 0.35
NATIVE_SCALE = (0.5, 1.6)  # picture px → network px of a part of a large picture, as tiles show it; log-uniform
FITTED_SCALE = (0.6, 1.5)  # of the scale at which the picture just fits, as a letterbox shows it
STRETCH = 1.2  # most that one side is stretched against the other
HUE = 7.0  # of OpenCV's 180: yolov4.cfg's .1 would make skin green
EXPOSURE = 1.5  # and saturation, as in yolov4.cfg


@dataclass(frozen=True)
class Sample:
    """A labelled picture: image (H, W, 3) uint8 BGR, boxes (N, 4) and ignored (K, 4) xyxy px, classes (N,)."""

    image: Image
    boxes: Boxes
    classes: npt.NDArray[np.int64]
    ignored: Boxes


Draw = Callable[[np.random.Generator], Sample]  # picks an annotated picture by chance


def augmented(rng: np.random.Generator, draw: Draw, size: int) -> Sample:
    """Make one training picture of size × size px: a window or a mosaic of four, then turned and recoloured."""
    mosaic = rng.random() < MOSAIC_CHANCE
    made = _mosaic(rng, draw, size) if mosaic else window(rng, draw(rng), size, size)
    return turned(rng, Sample(recolour(rng, made.image), made.boxes, made.classes, made.ignored))


def window(rng: np.random.Generator, picture: Sample, width: int, height: int) -> Sample:
    """Show a chance part of a picture at a chance scale in width × height px; what lies beyond it is grey."""
    scale = _scale(rng, picture, width, height)
    stretch = _log_uniform(rng, 1 / STRETCH, STRETCH) ** 0.5 if rng.random() < 0.5 else 1.0
    scale_x, scale_y = scale * stretch, scale / stretch
    x, y = _corner(rng, picture, width / scale_x, height / scale_y)
    # pixel centres lie at half numbers, as cv2.resize has it; warpAffine counts from centres
    matrix = np.asarray([[scale_x, 0, (0.5 - x) * scale_x - 0.5], [0, scale_y, (0.5 - y) * scale_y - 0.5]], np.float64)
    grey = (LETTERBOX_GREY,) * 3
    image = cv2.warpAffine(picture.image, matrix, (width, height), borderMode=cv2.BORDER_CONSTANT, borderValue=grey)
    shift = np.asarray([x, y, x, y], np.float32)
    grown = np.asarray([scale_x, scale_y, scale_x, scale_y], np.float32)
    moved = Sample(
        np.asarray(image, np.uint8),
        (picture.boxes - shift) * grown,
        picture.classes,
        (picture.ignored - shift) * grown,
    )
    return _trimmed(moved)


def _scale(rng: np.random.Generator, picture: Sample, width: int, height: int) -> float:
    """Choose picture px → network px: the whole picture more or less, or a part of a large one near its own scale.

    A part is of no use where a lesion alone would fill it.
    """
    rows, columns = picture.image.shape[:2]
    fits = float(min(width / columns, height / rows))
    largest = float((picture.boxes[:, 2:] - picture.boxes[:, :2]).max()) if len(picture.boxes) else 0.0
    if fits >= 1 or largest > 0.5 * min(width, height) or rng.random() < 0.4:
        return fits * _log_uniform(rng, *FITTED_SCALE)
    low, high = NATIVE_SCALE
    return _log_uniform(rng, max(low, fits), high)


def _corner(rng: np.random.Generator, picture: Sample, reach_x: float, reach_y: float) -> tuple[int, int]:
    """Choose the top left corner of a window of reach_x × reach_y picture px, mostly with a lesion in it."""
    rows, columns = picture.image.shape[:2]
    free_x, free_y = columns - reach_x, rows - reach_y
    at_x, at_y = free_x * rng.uniform(), free_y * rng.uniform()
    if len(picture.boxes) and rng.random() < 0.85:
        x1, y1, x2, y2 = picture.boxes[int(rng.integers(len(picture.boxes)))]
        at_x = (x1 + x2) / 2 - rng.uniform(0.1, 0.9) * reach_x
        at_y = (y1 + y2) / 2 - rng.uniform(0.1, 0.9) * reach_y
        # keep to the picture where it is large enough
        at_x = np.clip(at_x, 0, free_x) if free_x > 0 else at_x
        at_y = np.clip(at_y, 0, free_y) if free_y > 0 else at_y
    return round(float(at_x)), round(float(at_y))


def _trimmed(moved: Sample) -> Sample:
    """Cut boxes to what is shown; those cut away for the most part, or tiny, are moved to the ignored ones."""
    height, width = moved.image.shape[:2]
    boxes = moved.boxes
    seen = clip(boxes, width, height)
    share = area(seen) / np.maximum(area(boxes), 1e-6)
    sides = np.min(seen[:, 2:] - seen[:, :2], axis=1) if len(seen) else np.zeros(0)
    good = (share >= VISIBLE_SHARE) & (sides >= MIN_SIDE_PX)
    rest = clip(np.concatenate([moved.ignored, boxes[~good]]), width, height)
    rest = rest[area(rest) > 0]
    return Sample(moved.image, seen[good].astype(np.float32), moved.classes[good], rest.astype(np.float32))


def _mosaic(rng: np.random.Generator, draw: Draw, size: int) -> Sample:
    image = np.empty((size, size, 3), np.uint8)
    mid_x, mid_y = (round(v) for v in rng.uniform(0.3, 0.7, 2) * size)
    parts = []
    for left, top, right, bottom in (
        (0, 0, mid_x, mid_y),
        (mid_x, 0, size, mid_y),
        (0, mid_y, mid_x, size),
        (mid_x, mid_y, size, size),
    ):
        part = window(rng, draw(rng), right - left, bottom - top)
        image[top:bottom, left:right] = part.image
        shift = np.asarray([left, top, left, top], np.float32)
        parts.append(Sample(part.image, part.boxes + shift, part.classes, part.ignored + shift))
    return Sample(
        image,
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.classes for part in parts]),
        np.concatenate([part.ignored for part in parts]),
    )


def turned(rng: np.random.Generator, made: Sample) -> Sample:
    """Mirror and transpose a square picture by chance: skin has no upright."""
    image, size = made.image, made.image.shape[0]
    boxes, ignored = made.boxes, made.ignored
    if rng.random() < 0.5:
        image = image[:, ::-1]
        boxes, ignored = (b[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (size, 0, size, 0) for b in (boxes, ignored))
    if rng.random() < 0.5:
        image = image[::-1]
        boxes, ignored = (b[:, [0, 3, 2, 1]] * (1, -1, 1, -1) + (0, size, 0, size) for b in (boxes, ignored))
    if rng.random() < 0.5:
        image = image.transpose(1, 0, 2)
        boxes, ignored = (b[:, [1, 0, 3, 2]] for b in (boxes, ignored))
    return Sample(np.ascontiguousarray(image), boxes.astype(np.float32), made.classes, ignored.astype(np.float32))


def recolour(rng: np.random.Generator, image: Image) -> Image:
    """Change hue, saturation and exposure, blur or compress a few."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    levels = np.arange(256, dtype=np.float32)
    hue = ((levels + rng.uniform(-HUE, HUE)) % 180).astype(np.uint8)
    saturation, value = (
        np.clip(levels * _log_uniform(rng, 1 / EXPOSURE, EXPOSURE), 0, 255).astype(np.uint8) for _ in range(2)
    )
    hsv = cv2.LUT(hsv, np.stack([hue, saturation, value], axis=1)[None])
    image = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.uint8)
    chance = rng.random()
    if chance < 0.12:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.6)), np.uint8)
    elif chance < 0.3:
        _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))])
        image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return image


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(low * (high / low) ** rng.uniform())
