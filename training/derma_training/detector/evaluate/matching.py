"""Match what was found with what is there, exactly as pycocotools' COCOeval does (Lin et al. 2014).

Best score first, at most 100 a picture; a detection takes the free truth of the highest IoU at or above the
threshold. One that takes none counts for nothing if so much of it lies in an ignored region, or if its size is not
the one asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from derma_common.boxes import Boxes
from derma_training.detector.evaluate.looking import Seen

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
MAX_DETECTIONS = 100

Areas = tuple[float, float]  # smallest and largest area, px²
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Matches:
    """All detections over some pictures, best score first, at each of the T IoU thresholds."""

    scores: Floats  # (D,)
    hits: Flags  # (T, D): found a lesion
    spared: Flags  # (T, D): counts for nothing
    picture: npt.NDArray[np.int64]  # (D,) index of its picture
    truths: npt.NDArray[np.int64]  # (P,) lesions of each picture
    groups: tuple[str, ...]  # (P,) what a bootstrap draws: patients or lesions, else pictures

    @property
    def false(self) -> Flags:
        """Which detections (T, D) are false positives."""
        return ~(self.hits | self.spared)


def match_all(seen: Iterable[Seen], areas: Areas | None = None) -> Matches:
    """Match the detections of all pictures; with `areas` only lesions and detections of that size count."""
    scores, hits, spared, picture = [], [], [], []
    truths: list[int] = []
    groups: list[str] = []
    for number, one in enumerate(seen):
        boxes = one.found.boxes[:MAX_DETECTIONS]
        hit, free = match_picture(boxes, one.picture.boxes, one.picture.ignored, areas)
        scores.append(one.found.scores[:MAX_DETECTIONS].astype(np.float64))
        hits.append(hit)
        spared.append(free)
        picture.append(np.full(len(boxes), number, np.int64))
        truths.append(int(_within(one.picture.boxes, areas).sum()))
        groups.append(one.picture.group or f"#{number}")
    if not truths:
        empty = np.zeros((len(IOU_THRESHOLDS), 0), bool)
        return Matches(np.zeros(0), empty, empty, np.zeros(0, np.int64), np.zeros(0, np.int64), ())
    every = np.concatenate(scores)
    order = np.argsort(-every, kind="stable")
    return Matches(
        every[order],
        np.concatenate(hits, axis=1)[:, order],
        np.concatenate(spared, axis=1)[:, order],
        np.concatenate(picture)[order],
        np.asarray(truths, np.int64),
        tuple(groups),
    )


def match_picture(found: Boxes, truth: Boxes, ignored: Boxes, areas: Areas | None = None) -> tuple[Flags, Flags]:
    """Return which of `found` (D, 4), best first, are hits (T, D), and which count for nothing (T, D)."""
    shape = (len(IOU_THRESHOLDS), len(found))
    hits, spared = np.zeros(shape, bool), np.zeros(shape, bool)
    common, crowd = _intersection(found, truth), _intersection(found, ignored)
    sizes = _area(found)[:, None]
    overlaps = common / np.maximum(sizes + _area(truth) - common, 1e-12)
    inside = (crowd / np.maximum(sizes, 1e-12)).max(axis=1, initial=0.0)
    counts = _within(truth, areas)
    candidates = np.flatnonzero(overlaps.max(axis=1, initial=0.0) >= IOU_THRESHOLDS[0])
    for level, threshold in enumerate(IOU_THRESHOLDS):
        spared[level] = inside >= threshold
        free = np.ones(len(truth), bool)
        for i in candidates:
            j = _best(overlaps[i], free & counts, threshold)
            if j is not None:
                hits[level, i], spared[level, i] = True, False
            else:
                j = _best(overlaps[i], free & ~counts, max(threshold, inside[i]))
                spared[level, i] |= j is not None
            if j is not None:
                free[j] = False
    return hits, spared | (~_within(found, areas)[None] & ~hits)


def _best(overlaps: Floats, allowed: Flags, least: float) -> int | None:
    """Return the allowed index of the largest overlap of at least `least`; of equal ones the last, as COCOeval."""
    chosen = np.where(allowed, overlaps, -1.0)[::-1]
    j = int(np.argmax(chosen)) if len(chosen) else -1
    return len(chosen) - 1 - j if j >= 0 and chosen[j] >= least else None


def _within(boxes: Boxes, areas: Areas | None) -> Flags:
    sizes = _area(boxes)
    return np.ones(len(boxes), bool) if areas is None else (sizes >= areas[0]) & (sizes <= areas[1])


def _area(boxes: Boxes) -> Floats:
    sides = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    return np.asarray(sides.prod(axis=1), np.float64)


def _intersection(a: Boxes, b: Boxes) -> Floats:
    wide_a, wide_b = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    sides = np.minimum(wide_a[..., 2:], wide_b[..., 2:]) - np.maximum(wide_a[..., :2], wide_b[..., :2])
    return np.asarray(np.maximum(sides, 0.0).prod(axis=2), np.float64)
