"""Batches for the detector: windows cut from pictures, mosaics of four, colour and camera changes.

Mosaic: Bochkovskiy et al. 2020, §3.3. Everything random comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from derma_common.boxes import Boxes, area, clip
from derma_common.preprocess import LETTERBOX_GREY, Image, to_tensor
from derma_training.detector.sources import NONE, Picture

# how often each source is shown; a source that is missing leaves its share to the others
SHARES = {
    "drawn": 0.11,
    "pasted": 0.25,
    "ham10000": 0.23,
    "pad_ufes20": 0.20,
    "itobos": 0.08,
    "normal_skin": 0.07,
    "hand_video": 0.06,
}
VISIBLE_SHARE = 0.4  # a box cut down below this share is neither right nor wrong
MIN_SIDE_PX = 5.0  # and so is one that has become smaller than this
MOSAIC_CHANCE = 0.35
WIDE_SCALE = (0.5, 1.6)  # picture px → network px, log-uniform
CLOSE_SCALE = (0.6, 1.5)  # of the scale at which a close-up just fits


@dataclass(frozen=True)
class Sample:
    """A picture ready for the network: image (S, S, 3) uint8, boxes and ignored (·, 4) xyxy px."""

    image: Image
    boxes: Boxes
    ignored: Boxes


Pools = Mapping[str, Sequence[Picture]]


def batch(rng: np.random.Generator, pools: Pools, count: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return images (count, 3, size, size) in [0, 1], truths (M, 6) and ignored boxes (K, 5) for `yolo_loss`."""
    samples = [sample(rng, pools, size) for _ in range(count)]
    images = torch.from_numpy(to_tensor([s.image for s in samples], (0, 0, 0), (1, 1, 1)))
    truths = [
        np.column_stack([np.full(len(s.boxes), n), np.zeros(len(s.boxes)), s.boxes]) for n, s in enumerate(samples)
    ]
    ignored = [np.column_stack([np.full(len(s.ignored), n), s.ignored]) for n, s in enumerate(samples)]
    return images, _rows(truths, 6), _rows(ignored, 5)


def _rows(parts: list[npt.NDArray[np.float64]], columns: int) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).reshape(-1, columns).astype(np.float32))


def sample(rng: np.random.Generator, pools: Pools, size: int) -> Sample:
    """Draw one training picture of size × size px: a window or a mosaic of four, then turned and recoloured."""
    mosaic = rng.random() < MOSAIC_CHANCE
    made = _mosaic(rng, pools, size) if mosaic else window(rng, pick(rng, pools), size, size)
    return _turned(rng, Sample(recolour(rng, made.image), made.boxes, made.ignored), size)


def pick(rng: np.random.Generator, pools: Pools) -> Picture:
    """Choose a picture: first a source by its share, then any of its pictures."""
    names = [name for name in pools if pools[name]]
    shares = np.asarray([SHARES[name] for name in names])
    pool = pools[names[int(rng.choice(len(names), p=shares / shares.sum()))]]
    return pool[int(rng.integers(len(pool)))]


def window(rng: np.random.Generator, picture: Picture, width: int, height: int) -> Sample:
    """Show a chance part of a picture at a chance scale in width × height px; what lies beyond it is grey."""
    rows, columns = picture.image.shape[:2]
    fits = min(width / columns, height / rows)
    if picture.close_up:
        scale = fits * _log_uniform(rng, *CLOSE_SCALE)
    elif len(picture.boxes):
        scale = _log_uniform(rng, *WIDE_SCALE)
    else:
        scale = _log_uniform(rng, min(fits, WIDE_SCALE[1]), WIDE_SCALE[1])
    x, y = _corner(rng, picture, width / scale, height / scale)
    image = _cut(rng, picture.image, x, y, width, height, scale)
    shift = np.asarray([x, y, x, y], np.float32)
    return _trimmed((picture.boxes - shift) * scale, (picture.ignored - shift) * scale, image)


def _corner(rng: np.random.Generator, picture: Picture, reach_x: float, reach_y: float) -> tuple[int, int]:
    """Choose the top left corner of a window of reach_x × reach_y picture px, mostly with a lesion in it."""
    rows, columns = picture.image.shape[:2]
    if len(picture.boxes) and rng.random() < 0.85:
        x1, y1, x2, y2 = picture.boxes[int(rng.integers(len(picture.boxes)))]
        at_x, at_y = (
            (x1 + x2) / 2 - rng.uniform(0.1, 0.9) * reach_x,
            (y1 + y2) / 2 - rng.uniform(0.1, 0.9) * reach_y,
        )
        if not picture.close_up:  # keep to the picture where it is large enough
            at_x = np.clip(at_x, 0, columns - reach_x) if reach_x < columns else at_x
            at_y = np.clip(at_y, 0, rows - reach_y) if reach_y < rows else at_y
        return round(float(at_x)), round(float(at_y))
    free_x, free_y = columns - reach_x, rows - reach_y
    return round(free_x * rng.uniform()), round(free_y * rng.uniform())


def _cut(rng: np.random.Generator, image: Image, x: int, y: int, width: int, height: int, scale: float) -> Image:
    """Cut width/scale × height/scale px at (x, y) and resize them to (height, width, 3)."""
    rows, columns = image.shape[:2]
    right, bottom = x + max(2, round(width / scale)), y + max(2, round(height / scale))
    inside = image[max(0, y) : max(0, min(rows, bottom)), max(0, x) : max(0, min(columns, right))]
    if inside.size == 0:
        return np.full((height, width, 3), LETTERBOX_GREY, np.uint8)
    out = np.full((height, width, 3), LETTERBOX_GREY, np.uint8)
    x1, y1 = round(max(0, -x) * scale), round(max(0, -y) * scale)
    x2, y2 = min(width, x1 + round(inside.shape[1] * scale)), min(height, y1 + round(inside.shape[0] * scale))
    if x2 > x1 and y2 > y1:
        method = cv2.INTER_AREA if scale < 1 and rng.random() < 0.4 else cv2.INTER_LINEAR
        out[y1:y2, x1:x2] = cv2.resize(np.ascontiguousarray(inside), (x2 - x1, y2 - y1), interpolation=method)
    return out


def _trimmed(boxes: Boxes, ignored: Boxes, image: Image) -> Sample:
    """Cut boxes to the image; those cut away for the most part, or tiny, are moved to the ignored ones."""
    height, width = image.shape[:2]
    seen = clip(boxes, width, height)
    share = area(seen) / np.maximum(area(boxes), 1e-6)
    sides = np.min(seen[:, 2:] - seen[:, :2], axis=1) if len(seen) else np.zeros(0)
    good = (share >= VISIBLE_SHARE) & (sides >= MIN_SIDE_PX)
    rest = clip(np.concatenate([ignored, boxes[~good]]), width, height)
    rest = rest[area(rest) > 0]
    return Sample(image, seen[good].astype(np.float32), rest.astype(np.float32))


def _mosaic(rng: np.random.Generator, pools: Pools, size: int) -> Sample:
    image = np.empty((size, size, 3), np.uint8)
    mid_x, mid_y = (round(v) for v in rng.uniform(0.3, 0.7, 2) * size)
    boxes, ignored = [NONE], [NONE]
    for left, top, right, bottom in (
        (0, 0, mid_x, mid_y),
        (mid_x, 0, size, mid_y),
        (0, mid_y, mid_x, size),
        (mid_x, mid_y, size, size),
    ):
        part = window(rng, pick(rng, pools), right - left, bottom - top)
        image[top:bottom, left:right] = part.image
        shift = np.asarray([left, top, left, top], np.float32)
        boxes.append(part.boxes + shift)
        ignored.append(part.ignored + shift)
    return Sample(image, np.concatenate(boxes), np.concatenate(ignored))


def _turned(rng: np.random.Generator, made: Sample, size: int) -> Sample:
    """Mirror and transpose by chance: skin has no upright."""
    image, boxes, ignored = made.image, made.boxes, made.ignored
    if rng.random() < 0.5:
        image = image[:, ::-1]
        boxes, ignored = (b[:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (size, 0, size, 0) for b in (boxes, ignored))
    if rng.random() < 0.5:
        image = image[::-1]
        boxes, ignored = (b[:, [0, 3, 2, 1]] * (1, -1, 1, -1) + (0, size, 0, size) for b in (boxes, ignored))
    if rng.random() < 0.5:
        image = image.transpose(1, 0, 2)
        boxes, ignored = (b[:, [1, 0, 3, 2]] for b in (boxes, ignored))
    return Sample(np.ascontiguousarray(image), boxes.astype(np.float32), ignored.astype(np.float32))


def recolour(rng: np.random.Generator, image: Image) -> Image:
    """Change hue, saturation and exposure (yolov4.cfg: saturation, exposure 1.5), blur or compress a few."""
    hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    levels = np.arange(256, dtype=np.float32)
    hue = ((levels + rng.uniform(-7, 7)) % 180).astype(np.uint8)
    saturation, value = (np.clip(levels * _log_uniform(rng, 1 / 1.5, 1.5), 0, 255).astype(np.uint8) for _ in range(2))
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
