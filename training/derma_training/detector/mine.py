"""Hard negatives: pictures without lesions in which a detector finds some, written down to be trained on.

Sung & Poggio 1998 (bootstrapping): what the last detector took for a lesion is what the next one must be shown.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from derma_common.errors import ConfigError, ResourceError
from derma_common.inference.detection import Detector
from derma_common.preprocess import Image, cut, square_around
from derma_common.recordings import VIDEO_SUFFIXES, VideoFile
from derma_common.seqset import SeqSet
from derma_common.settings import TilePx
from derma_training.detector.annotations import Annotated, Decoded, read_annotations
from derma_training.detector.evaluate.looking import Seen, look_at

CROP_PX = 160
CROP_MARGIN = 1.0  # of the longer side, around what was found
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Skin:
    """Pictures without lesions, and how many were left out because they have some, or doubtful spots."""

    pictures: Iterable[Annotated]
    left_out: int


def open_skin(place: Path, every: int) -> Skin:
    """Open a folder of pictures, labelled or not, or a video of which each `every`th frame is taken.

    Raises SourceError.
    """
    if place.suffix.lower() in VIDEO_SUFFIXES:
        return Skin(_frames(place, every), 0)
    pictures = read_annotations(place).pictures
    bare = [picture for picture in pictures if not len(picture.boxes) and not len(picture.ignored)]
    return Skin(bare, len(pictures) - len(bare))


def _frames(video: Path, every: int) -> Iterator[Annotated]:
    for frame in VideoFile(video).pictures(SeqSet()):
        if frame.seq % every == 0 and frame.image is not None:
            height, width = frame.image.shape[:2]
            name = video.with_name(f"{video.stem}-{frame.seq:06d}.jpg")
            yield Decoded(name, width, height, source=video.stem, pixels=frame.image)


class Collection:
    """A folder of false findings: images/ and labels/ (empty) as YOLO, crops/ to look at, manifest.json."""

    def __init__(self, folder: Path) -> None:
        """Make the folder. Raises ConfigError when it holds something, ResourceError when it cannot be made."""
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty: name a new folder")
        self._folder = folder
        self._rows: list[dict[str, Any]] = []
        self.looked_at = 0
        self.false = 0
        try:
            for name in ("images", "labels", "crops"):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(f"cannot write into {folder}: {error.strerror}") from error

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, seen: Seen, threshold: float) -> None:
        """Keep a picture in which something scores above the threshold. Raises ResourceError."""
        self.looked_at += 1
        shown = seen.found.scores > threshold
        if not shown.any():
            return
        boxes, scores = seen.found.boxes[shown], seen.found.scores[shown]
        path = seen.picture.path
        name = f"{len(self._rows):05d}-{path.stem}"
        try:
            image = seen.picture.image()
            self._write_picture(seen.picture, name)
            (self._folder / "labels" / f"{name}.txt").touch()
            for k, box in enumerate(boxes):
                square = square_around([float(v) for v in box], CROP_MARGIN)
                _write(self._folder / "crops" / f"{name}-{k}.jpg", cut(image, square, CROP_PX))
        except OSError as error:
            raise ResourceError(f"cannot write into {self._folder}: {error.strerror}") from error
        self.false += len(boxes)
        self._rows.append({
            "picture": name, "origin": str(path), "boxes": np.round(boxes.astype(float), 1).tolist(),
            "scores": np.round(scores.astype(float), 4).tolist(),
        })  # fmt: skip

    def _write_picture(self, picture: Annotated, name: str) -> None:
        if isinstance(picture, Decoded):
            _write(self._folder / "images" / f"{name}.jpg", picture.pixels)
        else:
            shutil.copyfile(picture.path, self._folder / "images" / f"{name}{picture.path.suffix}")

    def close(self, **said: Any) -> dict[str, Any]:
        """Write the manifest and return its summary: counts, false findings per picture and what was `said`."""
        summary = {
            **said,
            "n_images": self.looked_at,
            "n_images_kept": len(self._rows),
            "n_false": self.false,
            "fp_per_image": round(self.false / max(1, self.looked_at), 4),
        }
        text = json.dumps({**summary, "pictures": self._rows}, indent=1, ensure_ascii=False)
        try:
            (self._folder / "manifest.json").write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise ResourceError(f"cannot write into {self._folder}: {error.strerror}") from error
        return summary


def _write(path: Path, image: Image) -> None:
    good, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not good:
        raise ResourceError(f"{path} cannot be encoded")
    path.write_bytes(data.tobytes())


def mine(detector: Detector, pictures: Iterable[Annotated], threshold: float, tile_px: TilePx, out: Collection) -> None:
    """Run the detector over pictures without lesions and keep those where it finds some."""
    for seen in look_at(detector, pictures, tile_px):
        out.add(seen, threshold)
