"""Run a detector over labelled pictures, through the same file, runner and decoder as the service."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from derma_common.inference.detection import Detections, Detector
from derma_common.inference.tiling import detect_tiled, windows_of
from derma_common.settings import TilePx
from derma_training.detector.annotations import Annotated

LOW_SCORE = 0.005  # as Darknet's `map`: what scores less changes no figure that is quoted


@dataclass(frozen=True, eq=False)
class Seen:
    """A labelled picture, what the detector found in it down to LOW_SCORE, and the time that took."""

    picture: Annotated
    found: Detections
    tiles: int
    elapsed_s: float


def look_at(detector: Detector, pictures: Iterable[Annotated], tile_px: TilePx = 0) -> Iterator[Seen]:
    """Yield what the detector finds in each picture; with `tile_px` also in tiles of it. Raises SourceError."""
    for picture in pictures:
        image = picture.image()
        height, width = image.shape[:2]
        windows = windows_of(width, height, tile_px, detector.card.input)
        started_ns = time.monotonic_ns()
        found = detect_tiled(detector, image, windows, score_threshold=LOW_SCORE)
        yield Seen(picture, found, len(windows), (time.monotonic_ns() - started_ns) / 1e9)
