"""From captured pixels to a network's input, once for services, training and evaluation.

There is no second resize, crop or normalisation anywhere in derma, so a model is served exactly
what it was trained and measured on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.boxes import Boxes

Image = npt.NDArray[np.uint8]  # (H, W, 3) BGR
Tensor = npt.NDArray[np.float32]  # (N, 3, H, W)
Channels = npt.NDArray[np.float32]  # (3,) red, green, blue

LETTERBOX_GREY = 114
CROP_MARGIN = 0.25  # of the longer side, added on each side of a detected box


@dataclass(frozen=True)
class Letterbox:
    """How a picture was fitted into a network's input: scale, left and top padding in px, size of what lies inside."""

    scale: float
    left_px: int
    top_px: int
    inner_w_px: int
    inner_h_px: int

    def to_frame(self, boxes: Boxes) -> Boxes:
        """Map boxes (N, 4) xyxy from network input px to px of the captured frame."""
        shift = np.asarray([self.left_px, self.top_px, self.left_px, self.top_px], dtype=np.float32)
        return np.asarray((boxes - shift) / np.float32(self.scale), dtype=np.float32)

    def to_input(self, boxes: Boxes) -> Boxes:
        """Map boxes (N, 4) xyxy from px of the captured frame to network input px."""
        shift = np.asarray([self.left_px, self.top_px, self.left_px, self.top_px], dtype=np.float32)
        return np.asarray(boxes * np.float32(self.scale) + shift, dtype=np.float32)


def placement(columns: int, rows: int, width: int, height: int) -> Letterbox:
    """Return how a picture of columns × rows px is fitted into width × height px: aspect kept, centred."""
    scale = min(width / columns, height / rows)
    inner_w = min(width, max(1, round(columns * scale)))
    inner_h = min(height, max(1, round(rows * scale)))
    return Letterbox(scale, (width - inner_w) // 2, (height - inner_h) // 2, inner_w, inner_h)


def letterbox(image: Image, width: int, height: int) -> tuple[Image, Letterbox]:
    """Fit image (H, W, 3) uint8 into (height, width, 3), aspect kept, centred on grey.

    Bilinear: at 1080p INTER_AREA costs 25 times as much for a picture the network cannot tell apart.
    """
    placed = placement(image.shape[1], image.shape[0], width, height)
    fitted = np.full((height, width, 3), LETTERBOX_GREY, dtype=np.uint8)
    bottom, right = placed.top_px + placed.inner_h_px, placed.left_px + placed.inner_w_px
    cv2.resize(
        image,
        (placed.inner_w_px, placed.inner_h_px),
        dst=fitted[placed.top_px : bottom, placed.left_px : right],
        interpolation=cv2.INTER_LINEAR,
    )
    return fitted, placed


def square_around(box: Sequence[float], margin: float = CROP_MARGIN) -> tuple[int, int, int, int]:
    """Return the square (x1, y1, x2, y2) in whole px that is cut out for a box, with margin.

    The square may reach over the frame's edge: `cut` repeats the border there, so that a lesion at
    the edge keeps its shape and its scale.
    """
    x1, y1, x2, y2 = (float(v) for v in box)
    side = max(1, round(max(x2 - x1, y2 - y1) * (1.0 + 2.0 * margin)))
    left = round((x1 + x2 - side) / 2.0)
    top = round((y1 + y2 - side) / 2.0)
    return left, top, left + side, top + side


def cut(image: Image, square: Sequence[int], size: int) -> Image:
    """Cut a square (x1, y1, x2, y2) px out of image (H, W, 3) uint8 and resize it to (size, size, 3).

    What lies outside the picture repeats its border. Shrinking averages over areas, growing is bilinear.
    """
    rows, columns = image.shape[:2]
    x1, y1, x2, y2 = (int(v) for v in square)
    inside = image[max(0, y1) : max(0, min(rows, y2)), max(0, x1) : max(0, min(columns, x2))]
    if inside.size == 0:
        raise ValueError(f"square {x1},{y1},{x2},{y2} lies outside the {columns}x{rows} picture")
    pads = (max(0, -y1), max(0, y2 - rows), max(0, -x1), max(0, x2 - columns))
    if any(pads):
        inside = cv2.copyMakeBorder(inside, *pads, borderType=cv2.BORDER_REPLICATE)  # type: ignore[assignment]
    return resize(inside, size)


def resize(image: Image, size: int) -> Image:
    """Resize image (H, W, 3) uint8 to (size, size, 3): by area when shrinking, bilinear when growing."""
    shrinks = size < min(image.shape[:2])
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size, size), interpolation=method), dtype=np.uint8)


def normalisation(mean: Sequence[float], std: Sequence[float]) -> tuple[Channels, Channels]:
    """Return factor and subtrahend, (3,) float32 each, that make (x / 255 − mean) / std of a uint8 value."""
    spread = np.asarray(std, dtype=np.float32)
    return 1.0 / (255.0 * spread), np.asarray(mean, dtype=np.float32) / spread


def to_tensor(images: Sequence[Image], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Stack images, each (H, W, 3) uint8 BGR, into (N, 3, H, W) float32 RGB, (x / 255 − mean) / std."""
    scale, shift = (values.reshape(1, 3, 1, 1) for values in normalisation(mean, std))
    # OpenCV takes the channels apart ten times as fast as numpy copies a transposed view; the numbers are the same
    planes = np.stack([cv2.split(image)[::-1] for image in np.stack(images)])
    tensor = planes * scale
    tensor -= shift
    return np.asarray(tensor, dtype=np.float32)


def softmax(logits: npt.NDArray[np.float32], temperature: float = 1.0) -> npt.NDArray[np.float32]:
    """Return probabilities (N, C) of logits (N, C) after temperature scaling (Guo et al. 2017, eq. 9)."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exponentials = np.exp(scaled)
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), dtype=np.float32)
