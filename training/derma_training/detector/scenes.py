"""Wide-field skin scenes: drawn skin, or windows of real lesion-free skin, with drawn and real lesions on it.

Boxes are exact. What nobody could box fairly goes to the ignored ones: a lesion that cloth, a plaster or ink hides in
part, one under SMALLEST_PX, and one that light and lens leave too faint to see.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.boxes import Boxes, clip, iou
from derma_common.drawn import details, effects
from derma_common.drawn.photography import photograph
from derma_common.drawn.scene import draw_skin
from derma_common.preprocess import Image
from derma_training.detector.augment import Sample
from derma_training.detector.cutouts import Cutout

FIELD_MM = (40.0, 240.0)  # width of skin in view, log-uniform: a hand's breadth to a whole back
LESION_FREE = 0.14  # share of scenes without any lesion
REAL_SKIN = 0.35  # share of scenes on real skin, where some is given
PASTED_DIAMETER_PX = (9.0, 200.0)
SMALLEST_PX = 6.0  # longer side
FAINTEST = 5.0  # grey levels between a lesion and the skin around it
HIDDEN = (0.05, 0.9)  # share of a box under cover: below counts as free, above as gone


def draw_scene(
    rng: np.random.Generator,
    width: int,
    height: int,
    cutouts: Sequence[Cutout] = (),
    skins: Sequence[Image] = (),
    lesion_free: float = LESION_FREE,
) -> Sample:
    """Draw one scene of width × height px: what is on it, how it is lit and photographed are left to chance.

    `lesion_free` is the chance that it shows no lesion.
    """
    px_per_mm = width / _log_uniform(rng, *FIELD_MM)
    free = rng.random() < lesion_free
    if skins and rng.random() < REAL_SKIN:
        image, boxes = _window(rng, skins, width, height), np.zeros((0, 4), np.float32)
    else:
        lesions = 0 if free else int(rng.integers(0, 3)) if cutouts else int(rng.integers(1, 9))
        # hair grows over pasted lesions too, and then not over a room behind the body
        hair, room = (0.0, False) if cutouts else (None, None)
        scene = draw_skin(rng, width, height, px_per_mm=px_per_mm, lesions=lesions, hair_per_cm2=hair, background=room)
        image, boxes = effects.pores(rng, scene.image, px_per_mm) if rng.random() < 0.6 else scene.image, scene.boxes
    if cutouts and not free:
        for _ in range(int(rng.integers(1, 7))):
            low, high = PASTED_DIAMETER_PX
            diameter = float(np.clip(low * (high / low) ** rng.beta(1.0, 1.6), low, high))
            image, boxes = paste(rng, image, boxes, cutouts[int(rng.integers(len(cutouts)))], diameter)
    image, hidden = _dress(rng, image, px_per_mm, hairy=bool(cutouts))
    image = photograph(rng, _light(rng, image, px_per_mm))
    if rng.random() < 0.6:
        image = effects.jpeg(image, int(rng.integers(30, 96)))
    return _settle(image, boxes, hidden)


def _dress(
    rng: np.random.Generator, image: Image, px_per_mm: float, hairy: bool
) -> tuple[Image, npt.NDArray[np.uint8]]:
    """Lay folds, ink, hair, a plaster and cloth on the skin, each by chance; returns what is hidden too."""
    hidden = np.zeros(image.shape[:2], np.uint8)
    if rng.random() < 0.3:
        image = effects.folds(rng, image, px_per_mm)
    if rng.random() < 0.1:
        image, cover = effects.ink(rng, image, px_per_mm)
        hidden |= cover
    if hairy:
        per_cm2 = float(rng.choice((0.0, 1.0, 5.0), p=(0.6, 0.25, 0.15)))
        image = details.hair(rng, image, px_per_mm, per_cm2, rng.uniform(5.0, 15.0))
    if rng.random() < 0.07:
        image, cover = effects.plaster(rng, image, px_per_mm)
        hidden |= cover
    if rng.random() < 0.25:
        image, cover = effects.cloth(rng, image)
        hidden |= cover
    return image, hidden


def _light(rng: np.random.Generator, image: Image, px_per_mm: float) -> Image:
    if rng.random() < 0.25:
        image = effects.shine(rng, image, px_per_mm)
    return effects.shadow(rng, image) if rng.random() < 0.3 else image


def _settle(image: Image, boxes: Boxes, hidden: npt.NDArray[np.uint8]) -> Sample:
    """Sort boxes (N, 4) into those that count, those to ignore, and those under cover, which are gone."""
    counted: list[npt.NDArray[np.float32]] = []
    ignored: list[npt.NDArray[np.float32]] = []
    for box in boxes:
        x1, y1, x2, y2 = (int(v) for v in (*np.floor(box[:2]), *np.ceil(box[2:])))
        share = float((hidden[y1:y2, x1:x2] > 127).mean())
        if share > HIDDEN[1]:
            continue
        small = max(box[2] - box[0], box[3] - box[1]) < SMALLEST_PX
        fair = share < HIDDEN[0] and not small and contrast(image, box) >= FAINTEST
        (counted if fair else ignored).append(box)
    kept, spared = (np.asarray(rows, np.float32).reshape(-1, 4) for rows in (counted, ignored))
    return Sample(image, kept, np.zeros(len(kept), np.int64), spared)


def contrast(image: Image, box: npt.NDArray[np.float32]) -> float:
    """Return how much the middle of a box xyxy px differs from the skin around it, in grey levels of one channel."""
    height, width = image.shape[:2]
    sides = box[2:] - box[:2]
    grown = clip(np.concatenate([box[:2] - sides / 2, box[2:] + sides / 2])[None], width, height)[0]
    x1, y1, x2, y2 = (round(float(v)) for v in grown)
    around = image[y1:y2, x1:x2].astype(np.float32)
    x, y = np.arange(x1, x2)[None] + 0.5, np.arange(y1, y2)[:, None] + 0.5
    outside = (x < box[0]) | (x > box[2]) | (y < box[1]) | (y > box[3])
    centre = (box[:2] + box[2:]) / 2
    inside = (np.abs(x - centre[0]) < np.maximum(0.6, sides[0] / 4)) & (np.abs(y - centre[1]) < max(0.6, sides[1] / 4))
    if not outside.any() or not inside.any():
        return 0.0
    return float(np.abs(around[inside].mean(axis=0) - around[outside].mean(axis=0)).max())


def paste(
    rng: np.random.Generator, image: Image, boxes: Boxes, cutout: Cutout, diameter_px: float
) -> tuple[Image, Boxes]:
    """Lay a cut-out on image (H, W, 3) where no box is; returns both unchanged when no place is free.

    The skin's colour is multiplied by the lesion's ratio to its own skin, so it suits every tone and light.
    """
    turns, mirrored = int(rng.integers(4)), bool(rng.random() < 0.5)
    x1, y1, x2, y2 = cutout.box
    scale = diameter_px / max(x2 - x1, y2 - y1)
    ratio, cover = (_shrunk(_turned(a, turns, mirrored), scale) for a in (cutout.ratio, cutout.cover))
    height, width = cover.shape
    if height >= image.shape[0] or width >= image.shape[1]:
        return image, boxes
    ys, xs = np.nonzero(cover > 0.35)  # the soft mask's edge, after turning and shrinking
    if not len(xs):
        return image, boxes
    for _ in range(8):
        left, top = (
            int(rng.integers(0, image.shape[1] - width)),
            int(rng.integers(0, image.shape[0] - height)),
        )
        box = np.asarray([[left + xs.min(), top + ys.min(), left + xs.max() + 1, top + ys.max() + 1]], np.float32)
        grown = box + np.asarray([-6, -6, 6, 6], np.float32)
        if not len(boxes) or float(iou(grown, boxes).max()) == 0:
            image = image.copy()
            under = image[top : top + height, left : left + width].astype(np.float32)
            factor = 1 + (ratio - 1) * cover[..., None]
            image[top : top + height, left : left + width] = np.clip(under * factor, 0, 255).astype(np.uint8)
            return image, np.concatenate([boxes, box])
    return image, boxes


def _turned(array: npt.NDArray[np.float32], turns: int, mirrored: bool) -> npt.NDArray[np.float32]:
    turned = np.rot90(array, turns)
    return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)


def _shrunk(array: npt.NDArray[np.float32], scale: float) -> npt.NDArray[np.float32]:
    height, width = (max(2, round(side * scale)) for side in array.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(array, (width, height), interpolation=method), np.float32)


def _window(rng: np.random.Generator, skins: Sequence[Image], width: int, height: int) -> Image:
    """Cut a part out of a picture of lesion-free skin and bring it to width × height px."""
    image = skins[int(rng.integers(len(skins)))]
    scale = rng.uniform(0.45, 1.0) * min(image.shape[1] / width, image.shape[0] / height)
    wide, tall = int(width * scale), int(height * scale)
    x, y = int(rng.integers(0, image.shape[1] - wide + 1)), int(rng.integers(0, image.shape[0] - tall + 1))
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    part = cv2.resize(image[y : y + tall, x : x + wide], (width, height), interpolation=method)
    return np.asarray(part, np.uint8)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(low * (high / low) ** rng.uniform())
