"""Squares that a network looks at: the pipeline's own cut around a lesion, or the picture's middle."""

from __future__ import annotations

from derma_common.preprocess import CROP_MARGIN, Image, cut, square_around
from derma_training.classifier.tables import Box

Square = tuple[int, int, int, int]


def evaluation_crop(image: Image, box: Box | None, size: int) -> Image:
    """Return what the network is measured on, (size, size, 3) uint8 BGR: the pipeline's crop, or the centre square.

    image: (H, W, 3) uint8 BGR. box: x1 y1 x2 y2 as shares of width and height, as a manifest has it.
    """
    height, width = image.shape[:2]
    square = square_around(in_px(box, width, height), CROP_MARGIN) if box else centre_square(width, height)
    return cut(image, square, size)


def in_px(box: Box, width: int, height: int) -> Box:
    """Turn a box from shares into px of a picture of width × height px."""
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height


def centre_square(width: int, height: int) -> Square:
    """Return the largest square in the middle of a picture of width × height px."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def moved_inside(square: Square, width: int, height: int) -> Square:
    """Shift, and shrink if it must be, a square so that it lies inside a picture of width × height px."""
    edge = min(square[2] - square[0], width, height)
    left = min(max(square[0], 0), width - edge)
    top = min(max(square[1], 0), height - edge)
    return left, top, left + edge, top + edge
