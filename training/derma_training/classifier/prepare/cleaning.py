"""One picture on its way into a prepared folder: cleaned, shrunk, copied, fingerprinted."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.errors import ResourceError
from derma_common.preprocess import Image
from derma_training.classifier.crops import Square, in_px
from derma_training.classifier.prepare.borders import inside_ring, trim_and_shave, whole, without_text_strip
from derma_training.classifier.prepare.duplicates import fingerprint
from derma_training.classifier.prepare.found import Found
from derma_training.classifier.tables import Box

BORDERS = {"none": whole, "trim": trim_and_shave, "circle": inside_ring}
JPEG_QUALITY = 95
TEXT_STRIP = "text strip"  # what SD-198 needs, whatever border the user names
KEPT_AS_THEY_ARE = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Prepared:
    """What became of a picture: its file, its fingerprint, its lesion box after cropping."""

    file: Path
    fingerprint: npt.NDArray[np.float32]
    box: Box | None


def targets(found: Sequence[Found], folder: Path) -> list[Path]:
    """Return FOLDER/SOURCE/NAME without suffix for each picture; a name used twice gets a number."""
    seen: Counter[tuple[str, str]] = Counter()
    places = []
    for one in found:
        key = (one.source, one.name.lower())
        name = f"{one.name}~{seen[key]}" if seen[key] else one.name
        seen[key] += 1
        places.append(folder / one.source / name)
    return places


def clean(one: Found, border: str, long_side: int, target: Path) -> Prepared:
    """Read a picture, cut its border off, shrink it and write it as `target` plus a suffix.

    border: "text strip" or a key of BORDERS. Raises ConfigError when it cannot be read, ResourceError when not written.
    """
    image = one.read()
    x1, y1, x2, y2 = without_text_strip(image) if border == TEXT_STRIP else BORDERS[border](image)
    inner = image[y1:y2, x1:x2]
    small = fitted(inner, long_side)
    target.parent.mkdir(parents=True, exist_ok=True)
    if one.file and small.shape == image.shape and one.file.suffix.lower() in KEPT_AS_THEY_ARE:
        file = target.with_name(target.name + one.file.suffix.lower())
        shutil.copyfile(one.file, file)
    else:
        file = target.with_name(target.name + ".jpg")
        if not cv2.imwrite(str(file), small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
            raise ResourceError(f"{file} cannot be written: no space or no permission")
    box = moved_box(one.box, image, (x1, y1, x2, y2)) if one.box else None
    return Prepared(file, fingerprint(small), box)


def fitted(image: Image, long_side: int) -> Image:
    """Shrink image (H, W, 3) so that its longer side is at most `long_side` px, aspect kept; never enlarge."""
    scale = long_side / max(image.shape[:2])
    if scale >= 1.0:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def moved_box(box: Box, image: Image, kept: Square) -> Box | None:
    """Return a box, in shares, after the rectangle `kept` (px) was cut out of image; None when it lies outside."""
    x1, y1, x2, y2 = in_px(box, image.shape[1], image.shape[0])
    width, height = kept[2] - kept[0], kept[3] - kept[1]
    left, right = (min(max((x - kept[0]) / width, 0.0), 1.0) for x in (x1, x2))
    top, bottom = (min(max((y - kept[1]) / height, 0.0), 1.0) for y in (y1, y2))
    return (left, top, right, bottom) if right > left and bottom > top else None
