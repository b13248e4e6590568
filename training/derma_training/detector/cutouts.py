"""Real lesions cut from their pictures, to be laid on other skin.

A cut-out keeps the lesion's colour relative to the skin it came from, so it suits every tone and light.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.errors import SourceError
from derma_common.preprocess import Image

Mask = npt.NDArray[np.uint8]  # (H, W), 255 on the lesion
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
LARGEST_PX = 512  # longer crops are shrunk: pasted lesions are smaller than that
RIM_SHARE = 0.06  # of a crop's side, taken for bare skin
RIM_LEVEL = 0.6  # of Otsu's threshold
LEAST_CONTRAST = 12.0  # in Lab units; less is no lesion that one can outline


@dataclass(frozen=True)
class Cutout:
    """A lesion without its skin.

    `ratio` (h, w, 3) float32 is its colour over that of the skin around it, `cover` (h, w) float32 its soft
    mask, `box` its bounds xyxy px within the patch.
    """

    ratio: npt.NDArray[np.float32]
    cover: npt.NDArray[np.float32]
    box: tuple[float, float, float, float]


def read_cutouts(folder: Path) -> list[Cutout]:
    """Cut the lesion out of each picture of `folder` (and its sub-folders), one lesion in the middle of each.

    A PNG's alpha channel is its mask; otherwise the mask is found by `lesion_mask`, and pictures that show no clear
    outline are left out. Raises SourceError when none can be used.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS)
    found = []
    for file in files:
        picture = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.dtype != np.uint8 or picture.ndim != 3:
            continue
        scale = LARGEST_PX / max(picture.shape[:2])
        if scale < 1:
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        image = np.ascontiguousarray(picture[..., :3], np.uint8)
        has_alpha = picture.shape[2] == 4
        mask = np.where(picture[..., 3] > 127, 255, 0).astype(np.uint8) if has_alpha else lesion_mask(image)
        cutout = cut_out(image, mask) if mask is not None else None
        if cutout is not None:
            found.append(cutout)
    if not found:
        raise SourceError(f"{folder}: none of its {len(files)} pictures shows one lesion with a clear outline")
    return found


def lesion_mask(image: Image) -> Mask | None:
    """Outline the lesion in the middle of a crop (H, W, 3): what differs from the colour of the crop's rim.

    Otsu's threshold (1979) on the distance in Lab, lowered: a lesion's rim is paler than its middle.
    None where nothing stands out.
    """
    height, width = image.shape[:2]
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), max(height, width) / 100), cv2.COLOR_BGR2Lab).astype(np.float32)
    rim = max(2, round(RIM_SHARE * min(height, width)))
    inner = np.zeros((height, width), bool)
    inner[rim:-rim, rim:-rim] = True
    apart = lab - np.median(lab[~inner], axis=0)
    distance = np.where(apart[..., 0] < 4, np.linalg.norm(apart, axis=2), 0)  # brighter than skin: a reflection
    levels = np.clip(distance, 0, 255).astype(np.uint8)
    level, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    if level < LEAST_CONTRAST:
        return None
    rough = np.asarray(levels > RIM_LEVEL * level, np.uint8) * np.uint8(255)
    size = max(3, max(height, width) // 40) | 1
    square = np.ones((size, size), np.uint8)
    clean = cv2.morphologyEx(cv2.morphologyEx(rough, cv2.MORPH_OPEN, square), cv2.MORPH_CLOSE, square)  # no hair
    outlines, _ = cv2.findContours(clean, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return None
    largest = max(outlines, key=cv2.contourArea)
    mask = cv2.drawContours(np.zeros((height, width), np.uint8), [largest], -1, 255, -1)
    middle = mask[height // 4 : -(height // 4), width // 4 : -(width // 4)]
    return np.asarray(mask, np.uint8) if middle.any() and cv2.contourArea(largest) > 0.01 * height * width else None


def cut_out(image: Image, mask: Mask) -> Cutout | None:
    """Return the masked lesion with its surroundings' colour divided out; None if it touches the picture's edge."""
    ys, xs = np.nonzero(mask)
    height, width = mask.shape
    if len(xs) < 200 or xs.min() < 3 or ys.min() < 3 or xs.max() > width - 4 or ys.max() > height - 4:
        return None
    side = max(int(xs.max() - xs.min()), int(ys.max() - ys.min())) + 1
    reach = max(3, side // 6)
    ring = (cv2.dilate(mask, np.ones((2 * reach + 1,) * 2, np.uint8)) > 0) & (mask == 0)
    if ring.sum() < 50:
        return None
    skin = np.maximum(np.median(image[ring].astype(np.float32), axis=0), 20.0)
    pad = max(2, side // 12)
    x1, y1 = max(0, int(xs.min()) - pad), max(0, int(ys.min()) - pad)
    x2, y2 = min(width, int(xs.max()) + 1 + pad), min(height, int(ys.max()) + 1 + pad)
    soft = cv2.GaussianBlur(mask[y1:y2, x1:x2].astype(np.float32) / 255, (0, 0), max(1.0, side / 45))
    ratio = np.clip(image[y1:y2, x1:x2].astype(np.float32) / skin, 0.05, 1.8)
    box = (float(xs.min()) - x1, float(ys.min()) - y1, float(xs.max()) + 1 - x1, float(ys.max()) + 1 - y1)
    return Cutout(np.asarray(ratio, np.float32), np.asarray(soft, np.float32), box)
