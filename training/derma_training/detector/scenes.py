"""Packed training scenes: drawn skin with drawn lesions, and real lesions laid on drawn or real skin.

Drawing is slower than training wants, so scenes are drawn once into packs (`scenes-<seed>.npy` with a
JSON of boxes beside it) and cropped anew each time they are used.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.boxes import Boxes, iou
from derma_common.drawn import details
from derma_common.drawn.photography import photograph
from derma_common.drawn.scene import draw_skin
from derma_common.preprocess import Image
from derma_training.detector.sources import NONE, Cutout, Picture

SIDE_PX = 512
SCALE_PX_PER_MM = (2.2, 14.0)  # log-uniform: a whole back to a hand's breadth
PASTED_DIAMETER_PX = (9.0, 200.0)


def draw_pack(seed: int, count: int, cutouts: list[Cutout], skins: list[Image], directory: Path) -> None:
    """Draw `count` scenes into `directory`: of three, one with drawn and two with pasted lesions (if there are any)."""
    images = np.empty((count, SIDE_PX, SIDE_PX, 3), np.uint8)
    labels = []
    for n in range(count):
        rng = np.random.default_rng((seed, n))
        pasted = bool(cutouts) and n % 3 != 0
        scene = pasted_scene(rng, cutouts, skins) if pasted else drawn_scene(rng)
        images[n] = scene.image
        labels.append({"source": scene.source, "boxes": [[round(float(v), 2) for v in b] for b in scene.boxes]})
    directory.mkdir(parents=True, exist_ok=True)
    draft = directory / "draft.npy"
    np.save(draft, images)
    (directory / f"scenes-{seed:04d}.json").write_text(json.dumps(labels), encoding="utf-8")
    draft.replace(directory / f"scenes-{seed:04d}.npy")


def read_pack(file: Path) -> list[Picture]:
    """Open a pack; its pictures stay on disk until they are used."""
    images = np.load(file, mmap_mode="r")
    labels = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    return [
        Picture(image, np.asarray(label["boxes"], np.float32).reshape(-1, 4), NONE, label["source"])
        for image, label in zip(images, labels, strict=True)
    ]


def drawn_scene(rng: np.random.Generator) -> Picture:
    """Draw a scene with drawn lesions at a chance scale; one in seven has none."""
    lesions = 0 if rng.random() < 0.14 else int(rng.integers(1, 9))
    scene = draw_skin(rng, SIDE_PX, SIDE_PX, px_per_mm=_chance_scale(rng), lesions=lesions)
    return Picture(photograph(rng, scene.image), scene.boxes, NONE, "drawn")


def pasted_scene(rng: np.random.Generator, cutouts: list[Cutout], skins: list[Image]) -> Picture:
    """Lay real lesions on a drawn scene or on a window of real lesion-free skin, under drawn hair."""
    scale = _chance_scale(rng)
    if skins and rng.random() < 0.35:
        image, boxes = _window(rng, skins), np.zeros((0, 4), np.float32)
    else:
        scene = draw_skin(
            rng,
            SIDE_PX,
            SIDE_PX,
            px_per_mm=scale,
            lesions=int(rng.integers(0, 3)),
            hair_per_cm2=0.0,
            background=False,
        )
        image, boxes = scene.image, scene.boxes
    for _ in range(int(rng.integers(1, 7))):
        cutout = cutouts[int(rng.integers(len(cutouts)))]
        low, high = PASTED_DIAMETER_PX
        diameter = float(np.clip(low * (high / low) ** rng.beta(1.0, 1.6), low, high))
        image, boxes = paste(rng, image, boxes, cutout, diameter)
    hairs = float(rng.choice((0.0, 1.0, 5.0), p=(0.6, 0.25, 0.15)))
    image = details.hair(rng, image, scale, hairs, rng.uniform(5.0, 15.0))
    return Picture(photograph(rng, image), boxes, NONE, "pasted")


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


def _window(rng: np.random.Generator, skins: list[Image]) -> Image:
    """Cut a square out of a picture of lesion-free skin and bring it to SIDE_PX."""
    image = skins[int(rng.integers(len(skins)))]
    limit = min(image.shape[:2])
    side = int(rng.uniform(0.45, 1.0) * limit)
    x, y = int(rng.integers(0, image.shape[1] - side + 1)), int(rng.integers(0, image.shape[0] - side + 1))
    window = image[y : y + side, x : x + side]
    return np.asarray(cv2.resize(window, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA), np.uint8)


def _chance_scale(rng: np.random.Generator) -> float:
    low, high = SCALE_PX_PER_MM
    return float(low * (high / low) ** rng.uniform())
