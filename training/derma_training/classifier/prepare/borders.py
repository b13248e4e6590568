"""What surrounds the skin in a picture: uniform borders, the dermatoscope's black ring, a strip of text.

Each function takes a picture (H, W, 3) uint8 BGR and returns the rectangle (x1, y1, x2, y2) px that is kept.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.preprocess import Image
from derma_training.classifier.crops import Square

FUZZ = 0.05  # share of the full range that may lie between a border's pixels and its corner
SHAVE_PX = 7
TEXT_STRIP_PX = 70
SMOOTHING_SIGMA_PX = 2.0
OTSU_SHARE = 0.2
RING_SHARE = 0.1  # of the radius that is cut off all round: the ring is not sharp
DARKEST_RATIO = 0.3  # mean outside / mean inside above which there is no black ring


def whole(image: Image) -> Square:
    """Return all of the picture."""
    return 0, 0, image.shape[1], image.shape[0]


def trim_and_shave(image: Image) -> Square:
    """Cut a uniform border off, then 7 px on every side: `mogrify -fuzz 5% -trim -shave 7x7` of Steppan & Hanke.

    As ImageMagick trims: left and top are compared with the corner at the top left, right with the top right, bottom
    with the bottom left; a pixel is of the border when its root mean square distance is within the fuzz.
    """
    pixels = image.astype(np.float32)
    first = _differs(pixels, image[0, 0])
    if not first.any():
        return whole(image)
    left, top = int(np.argmax(first.any(axis=0))), int(np.argmax(first.any(axis=1)))
    right = image.shape[1] - int(np.argmax(_differs(pixels, image[0, -1])[:, ::-1].any(axis=0)))
    bottom = image.shape[0] - int(np.argmax(_differs(pixels, image[-1, 0])[::-1].any(axis=1)))
    if right <= left or bottom <= top:
        return whole(image)
    return shaved((left, top, right, bottom))


def _differs(pixels: npt.NDArray[np.float32], colour: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    distance = np.square(pixels - colour).mean(axis=2)
    return np.asarray(distance > np.square(FUZZ * 255.0))


def shaved(kept: Square, bottom_px: int = 0) -> Square:
    """Take 7 px off every side, and `bottom_px` more below; a rectangle too small for it stays."""
    x1, y1, x2, y2 = kept
    inner = (x1 + SHAVE_PX, y1 + SHAVE_PX, x2 - SHAVE_PX, y2 - SHAVE_PX - bottom_px)
    return inner if inner[2] > inner[0] and inner[3] > inner[1] else kept


def without_text_strip(image: Image) -> Square:
    """Cut SD-198's strip of text below, and 7 px all round: `-shave 7x7 -gravity South -chop 0x70`."""
    return shaved(whole(image), TEXT_STRIP_PX)


def inside_ring(image: Image) -> Square:
    """Return the square inside a dermatoscope's black ring, all of the picture when there is none.

    After the preparation of the ISIC 2019 winners (Gessert et al. 2020): the bright region's diameter is the mean of
    its axes; the square spans 0.9 of it; it must lie inside the picture and be much brighter than what is outside.
    """
    smooth = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (0, 0), SMOOTHING_SIGMA_PX)
    grey = np.asarray(smooth, dtype=np.uint8)
    threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    _, bright = cv2.threshold(grey, OTSU_SHARE * threshold, 255, cv2.THRESH_BINARY)
    count, labels, stats, centres = cv2.connectedComponentsWithStats(bright)
    by_area = sorted(range(1, count), key=lambda i: -int(stats[i, cv2.CC_STAT_AREA]))
    for region in by_area[:2]:
        square = _square_in(np.asarray(labels == region, dtype=np.uint8), centres[region])
        if _is_in_ring(grey, square):
            return square
    return whole(image)


def _square_in(region: npt.NDArray[np.uint8], centre: npt.NDArray[np.float64]) -> Square:
    """Return the square around a region's centre, its half side 0.9 of the radius of the ellipse with its moments."""
    moments = cv2.moments(region, binaryImage=True)
    spread = np.asarray([[moments["mu20"], moments["mu11"]], [moments["mu11"], moments["mu02"]]]) / moments["m00"]
    axes = 4.0 * np.sqrt(np.maximum(np.linalg.eigvalsh(spread), 0.0))
    half = axes.mean() / 2.0 * (1.0 - RING_SHARE)
    x, y = float(centre[0]), float(centre[1])
    return round(x - half), round(y - half), round(x + half), round(y + half)


def _is_in_ring(grey: npt.NDArray[np.uint8], square: Square) -> bool:
    x1, y1, x2, y2 = square
    if x1 < 0 or y1 < 0 or x2 > grey.shape[1] or y2 > grey.shape[0] or x2 <= x1 or y2 <= y1:
        return False
    inside = grey[y1:y2, x1:x2]
    if inside.size == grey.size:
        return False
    outside = (float(grey.sum()) - float(inside.sum())) / (grey.size - inside.size)
    return outside <= DARKEST_RATIO * float(inside.mean())
