"""Bare skin as layers of pigment and light, and the picture they make.

Colour follows the two-chromophore view of Tsumura et al. (1999, "Independent-component analysis of skin
color image"): skin is a base colour times exp(−absorbance), where the absorbance is a sum over melanin and
haemoglobin. So a freckle, a nevus and a flush differ by one number each, on every tone.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.drawn.noise import Field, fractal, smooth, turned

Image = npt.NDArray[np.uint8]  # (H, W, 3) BGR

# absorbance per unit of chromophore, (B, G, R); set by eye
MELANIN = (1.0, 0.80, 0.52)
BLOOD = (0.62, 0.85, 0.16)
# base colours (B, G, R) in [0, 1] along the Fitzpatrick types 1 to 6; set by eye
TONES = (
    (0.76, 0.83, 0.95),
    (0.66, 0.75, 0.90),
    (0.54, 0.65, 0.83),
    (0.41, 0.52, 0.71),
    (0.28, 0.37, 0.53),
    (0.19, 0.25, 0.37),
)
WHITE = (0.80, 0.86, 0.90)  # scale, (B, G, R)


@dataclass
class Layers:
    """What lies on and in the skin, each field (H, W) float32; painters add to them in place."""

    melanin: Field  # absorbance, may be negative
    blood: Field  # absorbance, may be negative
    scale: Field  # 0 to 1, share of white horn
    light: Field  # factor on the reflected colour
    gloss: Field  # added white light


def tone(fitzpatrick: float) -> tuple[float, float, float]:
    """Return the base colour (B, G, R) in [0, 1] of a Fitzpatrick type, 1.0 to 6.0, between types too."""
    types = np.arange(1, 7)
    b, g, r = (float(np.interp(fitzpatrick, types, [t[c] for t in TONES])) for c in range(3))
    return b, g, r


def bare(rng: np.random.Generator, height: int, width: int, px_per_mm: float) -> Layers:
    """Draw lesion-free skin (height, width): mottling, pores, furrows, veins."""
    mottle = rng.uniform(0.3, 1.0)
    broad = fractal(rng, height // 4, width // 4, 6 * px_per_mm, 3)
    melanin = np.float32(0.05 * mottle) * _grown(broad, height, width)
    flush = fractal(rng, height // 4, width // 4, 2.5 * px_per_mm, 3)
    blood = np.float32(0.045 * mottle) * _grown(flush, height, width)
    melanin += np.float32(rng.uniform(0.01, 0.03)) * fractal(rng, height, width, max(2.0, 0.5 * px_per_mm), 2)
    layers = Layers(melanin, blood, *(np.zeros((height, width), np.float32) for _ in range(3)))
    layers.light += 1.0
    _furrows(rng, layers, px_per_mm)
    _veins(rng, layers, px_per_mm)
    return layers


def compose(layers: Layers, base: tuple[float, float, float]) -> Image:
    """Turn layers and a base colour (B, G, R) into a picture (H, W, 3) uint8 BGR."""
    image = np.empty((*layers.light.shape, 3), dtype=np.uint8)
    has_scale = bool(layers.scale.any())
    for c in range(3):
        absorbance = layers.melanin * np.float32(-MELANIN[c]) - layers.blood * np.float32(BLOOD[c])
        plane = cv2.exp(absorbance) * np.float32(base[c])
        if has_scale:
            plane += (np.float32(WHITE[c]) - plane) * layers.scale
        plane = plane * layers.light + layers.gloss
        image[..., c] = cv2.convertScaleAbs(np.clip(plane, 0.0, 1.0), alpha=255.0)
    return image


def _grown(field: Field, height: int, width: int) -> Field:
    return np.asarray(cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _furrows(rng: np.random.Generator, layers: Layers, px_per_mm: float) -> None:
    """Draw the fine criss-cross relief: two families of short furrows, seen as light and shade."""
    height, width = layers.light.shape
    angle = rng.uniform(0, np.pi)
    depth = rng.uniform(0.008, 0.03)
    for turn in (angle, angle + rng.uniform(0.9, 1.6)):
        lines = turned(rng, height, width, max(1.5, 0.3 * px_per_mm), rng.uniform(3, 6), turn)
        layers.light += np.float32(depth) * np.minimum(np.abs(lines) - 0.8, 0.4)


def _veins(rng: np.random.Generator, layers: Layers, px_per_mm: float) -> None:
    """Draw a few soft bluish veins and, on some skin, thin red vessels."""
    height, width = layers.light.shape
    canvas = np.zeros((height // 4, width // 4), np.uint8)
    wide = max(1, round(px_per_mm * rng.uniform(1.0, 2.2) / 4))
    paths = [_wander(rng, height / 4, width / 4, px_per_mm / 4) for _ in range(rng.integers(0, 5))]
    cv2.polylines(canvas, paths, False, 255, wide, cv2.LINE_AA)
    soft = cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), max(1.0, wide * 0.9))
    vein = _grown(np.asarray(soft, np.float32), height, width) * np.float32(rng.uniform(0.05, 0.16))
    layers.light -= vein * np.float32(0.7)
    layers.blood -= vein * np.float32(0.5)
    if rng.random() < 0.25:
        fine = np.zeros((height, width), np.uint8)
        threads = [_wander(rng, height, width, px_per_mm, 6) for _ in range(rng.integers(4, 25))]
        cv2.polylines(fine, threads, False, 255, 1, cv2.LINE_AA)
        layers.blood += cv2.GaussianBlur(fine, (0, 0), 0.9) * np.float32(rng.uniform(0.15, 0.4) / 255)


def _wander(
    rng: np.random.Generator, height: float, width: float, px_per_mm: float, steps: int = 40
) -> npt.NDArray[np.int32]:
    """Return a meandering path (steps, 2) of whole px that starts anywhere in the picture."""
    heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.25, steps))
    stride = px_per_mm * rng.uniform(1.0, 4.0) if steps > 10 else px_per_mm * rng.uniform(0.5, 1.5)
    moves = stride * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    return np.asarray(np.cumsum(moves, axis=0) + rng.uniform((0, 0), (width, height)), dtype=np.int32)


def shade(rng: np.random.Generator, layers: Layers, px_per_mm: float) -> None:
    """Light the skin: a slow gradient, soft folds, and shine that breaks up on the relief."""
    height, width = layers.light.shape
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    layers.light *= np.float32(rng.uniform(0.72, 0.98)) + np.float32(rng.uniform(0.05, 0.22)) * slope
    uneven = smooth(rng, height // 8, width // 8, max(height, width) / 24)
    layers.light *= 1 + np.float32(rng.uniform(0.02, 0.07)) * _grown(uneven, height, width)
    if rng.random() < 0.7:
        patch = _grown(fractal(rng, height // 8, width // 8, 3 * px_per_mm, 3), height, width)
        grain = fractal(rng, height, width, max(1.5, 0.5 * px_per_mm), 2)
        shine = np.maximum(patch - 0.3, 0) * np.clip(grain + 0.8, 0, 2)
        layers.gloss += np.float32(rng.uniform(0.003, 0.02)) * shine
