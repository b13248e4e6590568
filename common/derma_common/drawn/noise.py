"""Smooth random fields, the raw material of everything that is drawn."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]  # (H, W)


def smooth(rng: np.random.Generator, height: int, width: int, cell_px: float, stretch: float = 1.0) -> Field:
    """Return a field (height, width) of mean 0 and deviation about 1 whose blobs measure `cell_px`.

    `stretch` lengthens the blobs along x.
    """
    cell = max(1.0, cell_px)
    rows, columns = round(height / cell) + 3, round(width / (cell * stretch)) + 3
    grid = rng.standard_normal((rows, columns), dtype=np.float32)
    field = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(field * np.float32(1.4), dtype=np.float32)


def fractal(rng: np.random.Generator, height: int, width: int, cell_px: float, octaves: int) -> Field:
    """Return a field (height, width) of deviation about 1: octaves of `smooth`, each half as large and as strong."""
    total = np.zeros((height, width), dtype=np.float32)
    strength = 0.0
    for octave in range(octaves):
        total += np.float32(0.5**octave) * smooth(rng, height, width, cell_px / 2**octave)
        strength += 0.25**octave
    return np.asarray(total / np.float32(strength**0.5), dtype=np.float32)


def turned(rng: np.random.Generator, height: int, width: int, cell_px: float, stretch: float, angle: float) -> Field:
    """Return a stretched field (height, width) whose blobs lie along `angle` (radians)."""
    side = int(np.ceil(np.hypot(height, width)))
    field = smooth(rng, side, side, cell_px, stretch)
    turn = np.asarray(cv2.getRotationMatrix2D((side / 2, side / 2), float(np.degrees(angle)), 1.0), np.float64)
    turn[:, 2] += np.asarray([width - side, height - side]) / 2
    return np.asarray(cv2.warpAffine(field, turn, (width, height)), dtype=np.float32)
