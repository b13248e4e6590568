"""Moving pictures: symmetries, affine maps, the largest upright rectangle in a turned picture, reflected borders.

Pictures are (H, W, 3) uint8 BGR. What lies outside a picture mirrors it.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.preprocess import Image

Matrix = npt.NDArray[np.float64]  # (3, 3), of points (x, y, 1) in px


def dihedral(image: Image, k: int) -> Image:
    """Return one of the eight symmetries of the square, k in 0..7."""
    turned = np.rot90(image, k % 4)
    return np.ascontiguousarray(turned[:, ::-1] if k >= 4 else turned)


def about(matrix: Matrix, x: float, y: float) -> Matrix:
    """Return a map that does `matrix` with the point (x, y) as its origin."""
    return shift(x, y) @ matrix @ shift(-x, -y)


def rotation(degrees: float) -> Matrix:
    """Return the map that turns by an angle."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.asarray([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def scaling(factor: float) -> Matrix:
    """Return the map that enlarges by a factor."""
    return np.diag([factor, factor, 1.0])


def shear(amount: float) -> Matrix:
    """Return the map that moves x by `amount` times y."""
    return np.asarray([[1.0, amount, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def shift(x: float, y: float) -> Matrix:
    """Return the map that moves by (x, y) px."""
    return np.asarray([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def warp(image: Image, matrix: Matrix) -> Image:
    """Map a picture onto a canvas of its own size, bilinear."""
    size = (image.shape[1], image.shape[0])
    moved = cv2.warpAffine(image, matrix[:2], size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, dtype=np.uint8)


def reflected_to_square(image: Image) -> Image:
    """Add mirrored borders on both sides of the shorter direction until the picture is square."""
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    padded = cv2.copyMakeBorder(
        image, top, side - height - top, left, side - width - left, borderType=cv2.BORDER_REFLECT_101
    )
    return np.asarray(padded, dtype=np.uint8)


def inscribed_rectangle(width: float, height: float, degrees: float) -> tuple[float, float]:
    """Return width and height of the largest upright rectangle inside a picture of width × height turned by an angle.

    Of greatest area; when the picture is long and thin, two of its corners lie on the long sides only.
    """
    s, c = abs(math.sin(math.radians(degrees))), abs(math.cos(math.radians(degrees)))
    long, short = max(width, height), min(width, height)
    if short <= 2.0 * s * c * long or abs(s - c) < 1e-10:
        half = 0.5 * short
        return (half / s, half / c) if width >= height else (half / c, half / s)
    doubled = c * c - s * s
    return (width * c - height * s) / doubled, (height * c - width * s) / doubled


def turned(image: Image, degrees: float) -> Image:
    """Turn a picture about its centre and return the largest upright rectangle that holds nothing but the picture."""
    height, width = image.shape[:2]
    inner_width, inner_height = inscribed_rectangle(width, height, degrees)
    columns, rows = (max(1, math.floor(side + 1e-6)) for side in (inner_width, inner_height))
    centred = (
        shift(columns / 2.0 - 0.5, rows / 2.0 - 0.5) @ rotation(degrees) @ shift(0.5 - width / 2.0, 0.5 - height / 2.0)
    )
    inner = cv2.warpAffine(
        image, centred[:2], (columns, rows), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(inner, dtype=np.uint8)
