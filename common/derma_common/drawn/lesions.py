"""Drawn lesions: irregular outlines and five ways to fill them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.drawn.noise import Field, fractal, smooth
from derma_common.drawn.skin import Layers

Outline = npt.NDArray[np.float32]  # (P, 2) x y px

KINDS = ("nevus", "irregular", "nodular", "keratosis", "vascular")
DIAMETER_MM = {
    "nevus": (2.0, 7.0),
    "irregular": (5.0, 16.0),
    "nodular": (3.0, 9.0),
    "keratosis": (5.0, 16.0),
    "vascular": (2.0, 5.0),
}
# how uneven the outline is, and how long it may be against its width
UNEVENNESS = {"nevus": 0.05, "irregular": 0.16, "nodular": 0.05, "keratosis": 0.11, "vascular": 0.07}
STRETCH = {"nevus": 1.6, "irregular": 1.9, "nodular": 1.3, "keratosis": 1.8, "vascular": 1.3}
OUTLINE_POINTS = 72


@dataclass(frozen=True)
class DrawnLesion:
    """A lesion as drawn: its kind and its outline (P, 2) in px; nothing of it lies outside the outline."""

    kind: str
    outline: Outline

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The bounds x1 y1 x2 y2 of the outline, px."""
        (x1, y1), (x2, y2) = self.outline.min(axis=0), self.outline.max(axis=0)
        return float(x1), float(y1), float(x2), float(y2)


def draw_outline(rng: np.random.Generator, kind: str, centre: tuple[float, float], diameter_px: float) -> Outline:
    """Return an outline (72, 2) px: an ellipse whose radius is modulated by harmonics 2 to 8."""
    angle = np.linspace(0, 2 * np.pi, OUTLINE_POINTS, endpoint=False)
    radius = np.ones_like(angle)
    for k in range(2, 9):
        radius += rng.normal(0, UNEVENNESS[kind] * 4 / k**1.7) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.5, 1.5)
    stretch = rng.uniform(1.0, STRETCH[kind]) ** 0.5
    x, y = radius * np.cos(angle) * stretch, radius * np.sin(angle) / stretch
    turn = rng.uniform(0, np.pi)
    points = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1)
    return np.asarray(points * diameter_px / 2 + centre, dtype=np.float32)


def depth_inside(outline: Outline, left: int, top: int, width: int, height: int) -> Field:
    """Return how deep each pixel of a window lies inside the outline: 0 at and beyond it, 1 at the core.

    Small outlines are drawn enlarged, so that their edge is not a staircase.
    """
    enlarge = int(np.clip(np.ceil(64 / max(width, height)), 1, 8))
    points = np.round((outline - (left, top)) * enlarge * 16 - 8).astype(np.int32)
    mask = np.zeros((height * enlarge, width * enlarge), np.uint8)
    cv2.fillPoly(mask, [points], 255, cv2.LINE_8, shift=4)
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    small = cv2.resize(distance, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small / max(1e-3, float(distance.max())), dtype=np.float32)


def paint(rng: np.random.Generator, layers: Layers, lesion: DrawnLesion) -> None:
    """Paint a lesion into the layers, nowhere outside its outline."""
    rows, columns = layers.light.shape
    x1, y1, x2, y2 = lesion.box
    left, top = max(0, int(x1) - 1), max(0, int(y1) - 1)
    right, bottom = min(columns, int(x2) + 2), min(rows, int(y2) + 2)
    if right - left < 2 or bottom - top < 2:
        return
    depth = depth_inside(lesion.outline, left, top, right - left, bottom - top)
    soft = {"nodular": 0.30, "vascular": 0.22, "keratosis": 0.2}.get(lesion.kind, rng.uniform(0.25, 0.7))
    edge = np.clip(depth / np.float32(soft), 0, 1)
    cover = np.asarray(1 - (1 - edge) ** 2, dtype=np.float32)  # rises fast: the outline is where the eye puts it
    window = (slice(top, bottom), slice(left, right))
    patch = Layers(*(getattr(layers, name)[window] for name in ("melanin", "blood", "scale", "light", "gloss")))
    _FILLS[lesion.kind](rng, patch, cover, depth)


def _nevus(rng: np.random.Generator, patch: Layers, cover: Field, depth: Field) -> None:
    """A common nevus: even brown, a little darker or paler at its core, finely speckled."""
    height, width = cover.shape
    dark = rng.uniform(0.45, 1.5)
    grain = fractal(rng, height, width, max(2.0, width / 6), 2)
    patch.melanin += (
        cover * np.float32(dark) * (1 + np.float32(rng.uniform(-0.3, 0.5)) * depth + np.float32(0.08) * grain)
    )
    patch.blood += cover * np.float32(rng.uniform(-0.05, 0.2))
    if rng.random() < 0.4:
        _raise(rng, patch, depth, 0.12)


def _irregular(rng: np.random.Generator, patch: Layers, cover: Field, depth: Field) -> None:
    """A dark lesion of several colours: brown, black, blue-grey, red and regressed patches side by side."""
    height, width = cover.shape
    cell = max(2.0, width / 2)
    brown = 0.8 + 0.25 * fractal(rng, height, width, cell, 3)
    black = np.clip(fractal(rng, height, width, cell, 3) - rng.uniform(-0.2, 0.6), 0, 1)
    red = np.clip(fractal(rng, height, width, cell, 2) - rng.uniform(0.2, 1.0), 0, 1)
    pale = np.clip(fractal(rng, height, width, cell, 2) - rng.uniform(0.7, 1.6), 0, 1)
    strength = np.clip(rng.uniform(0.7, 1.3) * brown + rng.uniform(0.7, 1.6) * black - 0.5 * pale - 0.2 * red, 0.4, 2.6)
    patch.melanin += cover * np.asarray(strength, dtype=np.float32)
    patch.blood += cover * np.asarray(0.5 * red - 0.25 * black, dtype=np.float32)
    patch.scale += cover * np.asarray(0.10 * black * rng.uniform(0, 1.2) + 0.15 * pale, dtype=np.float32)
    if rng.random() < 0.5:
        _raise(rng, patch, depth, 0.10)


def _nodular(rng: np.random.Generator, patch: Layers, cover: Field, depth: Field) -> None:
    """A pink pearly dome with a highlight, a dark foot and thin branching vessels."""
    height, width = cover.shape
    patch.blood += cover * np.float32(rng.uniform(0.35, 0.8))
    patch.melanin += cover * np.float32(rng.uniform(-0.08, 0.3))
    vessels = np.abs(smooth(rng, height, width, max(2.0, width / 5), 1.5))
    patch.blood += cover * np.float32(0.35) * np.maximum(0.25 - vessels, 0) * 4
    _raise(rng, patch, depth, 0.25)


def _keratosis(rng: np.random.Generator, patch: Layers, cover: Field, depth: Field) -> None:
    """A rough stuck-on plaque: brown, yellow or reddish, with flakes of pale scale and dark pits."""
    height, width = cover.shape
    rough = fractal(rng, height, width, max(2.0, width / 7), 3)
    patch.melanin += cover * (np.float32(rng.uniform(0.25, 1.1)) + np.float32(0.16) * rough)
    patch.blood += cover * np.float32(rng.uniform(0.0, 0.4))
    flakes = np.clip(fractal(rng, height, width, max(2.0, width / 9), 2) - rng.uniform(0.4, 1.3), 0, 1)
    patch.scale += cover * flakes * np.float32(rng.uniform(0.2, 0.75))
    pits = np.clip(smooth(rng, height, width, max(1.5, width / 16)) - 1.3, 0, 1)
    patch.melanin += cover * pits * np.float32(rng.uniform(0, 0.8))
    _raise(rng, patch, depth, 0.15)


def _vascular(rng: np.random.Generator, patch: Layers, cover: Field, depth: Field) -> None:
    """A red to purple spot, nearly even, with lobes and a point of shine."""
    height, width = cover.shape
    lobes = fractal(rng, height, width, max(2.0, width / 4), 2)
    patch.blood += cover * np.float32(rng.uniform(0.9, 1.7)) * (1 + np.float32(0.12) * lobes)
    patch.melanin += cover * np.float32(rng.uniform(0.05, 0.55))
    _raise(rng, patch, depth, 0.15)


def _raise(rng: np.random.Generator, patch: Layers, depth: Field, relief: float) -> None:
    """Light a dome: bright towards the light, dark away from it, a highlight where it faces the lamp."""
    dome = np.sqrt(np.clip(depth * (2 - depth), 0, 1))
    span = max(dome.shape) / 4
    slope_x = cv2.Sobel(dome, cv2.CV_32F, 1, 0, ksize=3, scale=span / 8)
    slope_y = cv2.Sobel(dome, cv2.CV_32F, 0, 1, ksize=3, scale=span / 8)
    lamp = rng.uniform(0, 2 * np.pi)
    facing = slope_x * np.float32(np.cos(lamp)) + slope_y * np.float32(np.sin(lamp))
    inside = depth > 0
    patch.light += np.where(inside, np.float32(relief) * np.clip(facing, -1, 1), np.float32(0))
    shine = np.clip(facing - 0.35, 0, 1) * np.clip(depth * 3, 0, 1)
    patch.gloss += np.asarray(shine * rng.uniform(0, 0.3), dtype=np.float32)


_FILLS = {
    "nevus": _nevus,
    "irregular": _irregular,
    "nodular": _nodular,
    "keratosis": _keratosis,
    "vascular": _vascular,
}
