"""Wide-field pictures: look at overlapping tiles beside the whole picture, and report each lesion once.

A mole of 10–30 px in a picture that is shrunk threefold is gone. A tile shows it at full size; lesions too large for a
tile are found in the whole picture. Slicing with a whole view: Akyon et al. 2022 (SAHI), whose merging this is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from derma_common.boxes import Boxes, area
from derma_common.inference.card import InputSpec
from derma_common.inference.detection import Detections, Detector
from derma_common.preprocess import Image
from derma_common.settings import TilePx

Window = tuple[int, int, int, int]  # x1 y1 x2 y2, whole px, inside the picture

OVERLAP = 0.25  # of a tile's side: a lesion up to this size is whole in at least one tile
EDGE = 0.01  # of a tile's side: a box that ends so near to a tile's inner edge is cut there
AUTO_LONGER = 1.5  # a picture longer than so many network inputs loses small moles when it is shrunk
AUTO_ACROSS = 4.0  # at most so many tiles without their overlap along a picture's longer side, to bound the time


def tile_windows(width: int, height: int, tile_px: int) -> list[Window]:
    """Return overlapping square windows that cover a picture of width × height px; none if it fits into one."""
    if max(width, height) <= tile_px:
        return []
    return [
        (x, y, min(x + tile_px, width), min(y + tile_px, height))
        for y in _starts(height, tile_px)
        for x in _starts(width, tile_px)
    ]


def _starts(length: int, tile_px: int) -> list[int]:
    if length <= tile_px:
        return [0]
    count = math.ceil((length - OVERLAP * tile_px) / ((1 - OVERLAP) * tile_px))
    return [round(i * (length - tile_px) / (count - 1)) for i in range(count)]


def windows_of(width: int, height: int, tile_px: TilePx, spec: InputSpec) -> list[Window]:
    """Return the windows of a width × height px picture for tiles of this side; none for 0, or where one would do."""
    side = auto_tile_px(width, height, spec) if tile_px == "auto" else tile_px
    return tile_windows(width, height, side) if side else []


def auto_tile_px(width: int, height: int, spec: InputSpec) -> int:
    """Return a tile side that suits a picture and a network's input; 0 when the whole picture will do."""
    longer, side = max(width, height), min(spec.width, spec.height)
    return 0 if longer <= AUTO_LONGER * side else max(side, math.ceil(longer / AUTO_ACROSS))


class Rotation:
    """The windows of one source's pictures: all of each, or so many of each in turn."""

    def __init__(self, spec: InputSpec, tile_px: TilePx, at_once: int | None = None) -> None:
        """`spec` is the detector's; `at_once` bounds the windows of one picture, and with them its time; None: all."""
        self._spec, self._tile_px, self._at_once = spec, tile_px, at_once
        self._next = 0

    def turn(self, width: int, height: int) -> list[Window]:
        """Return the windows to look at in the next picture, of width × height px."""
        windows = windows_of(width, height, self._tile_px, self._spec)
        if self._at_once is None or len(windows) <= self._at_once:
            return windows
        chosen = [windows[(self._next + i) % len(windows)] for i in range(self._at_once)]
        self._next = (self._next + self._at_once) % len(windows)
        return chosen


def detect_tiled(
    detector: Detector,
    image: Image,
    windows: Sequence[Window],
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
    before_each: Callable[[], object] | None = None,
) -> Detections:
    """Find lesions in image (H, W, 3) uint8 BGR as a whole and in windows of it; boxes in px of the image.

    The thresholds default to the card's. `before_each` is called before each window: looking at many takes long.
    """
    whole = detector.detect(image, score_threshold, iou_threshold)
    if not windows:
        return whole
    views = [_kept(whole, ~_shown_better(whole.boxes, windows, image.shape[1], image.shape[0]))]
    for window in windows:
        if before_each is not None:
            before_each()
        x1, y1, x2, y2 = window
        found = detector.detect(image[y1:y2, x1:x2], score_threshold, iou_threshold)
        found = Detections(found.boxes + np.asarray([x1, y1, x1, y1], np.float32), found.scores)
        views.append(_kept(found, ~_cut(found.boxes, window, image.shape[1], image.shape[0])))
    return merge(views, detector.card.iou_threshold if iou_threshold is None else iou_threshold)


def _kept(found: Detections, which: npt.NDArray[np.bool_]) -> Detections:
    return Detections(found.boxes[which], found.scores[which])


def _cut(boxes: Boxes, window: Window, width: int, height: int) -> npt.NDArray[np.bool_]:
    """Tell which boxes (N, 4) reach an edge of the window that is no edge of the width × height px picture."""
    x1, y1, x2, y2 = window
    margin = EDGE * max(x2 - x1, y2 - y1)
    return np.asarray(
        ((boxes[:, 0] <= x1 + margin) & (x1 > 0))
        | ((boxes[:, 1] <= y1 + margin) & (y1 > 0))
        | ((boxes[:, 2] >= x2 - margin) & (x2 < width))
        | ((boxes[:, 3] >= y2 - margin) & (y2 < height))
    )


def _shown_better(boxes: Boxes, windows: Sequence[Window], width: int, height: int) -> npt.NDArray[np.bool_]:
    """Tell which boxes (N, 4) of the whole picture are small and lie whole in a window: that one is to find them."""
    better = np.zeros(len(boxes), bool)
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0.0)
    for window in windows:
        x1, y1, x2, y2 = window
        small = sides <= OVERLAP * max(x2 - x1, y2 - y1)
        better |= small & ~_cut(boxes, window, width, height)
    return better


def merge(views: Sequence[Detections], covered: float) -> Detections:
    """Return the detections of several views of one picture without doubles, best first.

    A box is a double when more than `covered` of its area lies in a better one of another view: the same lesion at two
    scales, or a part of a larger one. Boxes of one view have been through NMS and are left alone.
    """
    boxes = np.concatenate([view.boxes for view in views])
    scores = np.concatenate([view.scores for view in views])
    origin = np.repeat(np.arange(len(views)), [len(view) for view in views])
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while left.size:
        best, left = left[0], left[1:]
        kept.append(int(best))
        sides = np.minimum(boxes[best, 2:], boxes[left, 2:]) - np.maximum(boxes[best, :2], boxes[left, :2])
        inside = np.maximum(sides, 0).prod(axis=1) / np.maximum(area(boxes[left]), 1e-9)
        left = left[(origin[left] == origin[best]) | (inside <= covered)]
    return Detections(boxes[kept], scores[kept])
