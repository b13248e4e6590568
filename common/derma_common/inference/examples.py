"""The pictures that a fresh engine is judged by: frames of the sample recording, or a folder of the user's own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from derma_common.boxes import Boxes
from derma_common.errors import SourceError
from derma_common.preprocess import Image
from derma_common.shipped import SAMPLE, shipped

MOST = 48  # pictures: judging takes seconds, not minutes
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Example:
    """A picture (H, W, 3) uint8 BGR and, where somebody knows them, the boxes (N, 4) xyxy px of its lesions."""

    image: Image
    boxes: Boxes | None

    @property
    def squares(self) -> Boxes:
        """Boxes to cut crops around: the lesions', or else the middle of the picture."""
        if self.boxes is not None:
            return self.boxes
        height, width = self.image.shape[:2]
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        # the crop's margin is added around a box again
        inset = side / 6
        box = [left + inset, top + inset, left + side - inset, top + side - inset]
        return np.asarray([box], dtype=np.float32)


def examples(folder: Path | None) -> list[Example]:
    """Return up to 48 pictures of `folder`, or of the sample recording with its boxes when there is no folder.

    Raises SourceError when there is none that can be read.
    """
    found = _of_folder(folder) if folder else _of_recording(shipped(SAMPLE))
    if not found:
        raise SourceError(
            f"{folder or shipped(SAMPLE)} holds no picture that can be read; engines are judged by pictures"
        )
    return found


def identity(folder: Path | None) -> str:
    """Return what tells one set of pictures from another: a hash of names and sizes; "sample" without a folder."""
    if folder is None:
        return "sample"
    rows = [(path.name, path.stat().st_size) for path in _files(folder)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise SourceError(f"run.engine_pictures: {folder} cannot be read: {error.strerror}") from None
    return [paths[i] for i in _spread(len(paths))]


def _of_folder(folder: Path) -> list[Example]:
    images = [cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) for path in _files(folder)]
    return [Example(np.asarray(image, np.uint8), None) for image in images if image is not None]


def _of_recording(sample: Path) -> list[Example]:
    truth = sample.with_suffix(".json")
    rows = json.loads(truth.read_text(encoding="utf-8"))["frames"]
    wanted, found = set(_spread(len(rows))), []
    video = cv2.VideoCapture(str(sample))
    for i, row in enumerate(rows):
        good, image = video.read()
        if good and i in wanted:
            boxes = np.asarray([lesion["box"] for lesion in row["lesions"]], dtype=np.float32).reshape(-1, 4)
            found.append(Example(np.asarray(image, np.uint8), boxes))
    video.release()
    return found


def _spread(count: int) -> list[int]:
    """Return up to MOST of `count` indices, evenly spread."""
    return [i * count // MOST for i in range(MOST)] if count > MOST else list(range(count))
