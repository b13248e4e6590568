"""Figures of an exported detector, through the same file, runner and preprocessing as the service.

A detection is a hit if its IoU with a free truth is at least 0.5, best score first (COCO's matching);
one that lies in an ignored box counts for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.boxes import Boxes, area, clip, match
from derma_common.drawn.photography import photograph
from derma_common.drawn.scene import draw_skin
from derma_common.errors import SourceError
from derma_common.inference.detection import Detector
from derma_training.detector.sources import NONE, SOURCES, Picture

LOW_SCORE = 0.02  # below it detections change no figure that is quoted
HIT_IOU = 0.5
DRAWN_SEED = {"tune": 900_001, "test": 900_002}  # far from the packs' seeds
TILE_PX, TILE_STEP_PX = 416, 340


@dataclass(frozen=True)
class Scored:
    """All detections over some pictures: score and hit, best first; and what there was to find."""

    scores: npt.NDArray[np.float32]  # (N,)
    hits: npt.NDArray[np.bool_]  # (N,)
    truths: int
    pictures: int


def score(detector: Detector, pictures: Iterable[Picture]) -> Scored:
    """Run the detector over pictures and match what it finds."""
    scores: list[float] = []
    hits: list[bool] = []
    truths = count = 0
    for picture in pictures:
        found = detector.detect(picture.image, score_threshold=LOW_SCORE)
        matched = {i for i, _ in match(found.boxes, picture.boxes, HIT_IOU)}
        spared = _inside(found.boxes, picture.ignored)
        for i in range(len(found)):
            if i in matched or not spared[i]:
                scores.append(float(found.scores[i]))
                hits.append(i in matched)
        truths, count = truths + len(picture.boxes), count + 1
    order = np.argsort(-np.asarray(scores, np.float32), kind="stable")
    return Scored(np.asarray(scores, np.float32)[order], np.asarray(hits, bool)[order], truths, count)


def _inside(boxes: Boxes, ignored: Boxes) -> npt.NDArray[np.bool_]:
    """Return which boxes (N, 4) lie by half or more in one of the ignored boxes (K, 4)."""
    if not len(boxes) or not len(ignored):
        return np.zeros(len(boxes), bool)
    sides = np.minimum(boxes[:, None, 2:], ignored[None, :, 2:]) - np.maximum(boxes[:, None, :2], ignored[None, :, :2])
    common = np.maximum(sides, 0).prod(axis=2)
    return np.asarray(common.max(axis=1) >= 0.5 * area(boxes))


def figures(scored: Scored, threshold: float) -> dict[str, Any]:
    """Return n, AP50 and what holds at the threshold: recall, precision, F1, false positives per picture."""
    above = scored.scores > threshold
    hits, shown = int((scored.hits & above).sum()), int(above.sum())
    result: dict[str, Any] = {"pictures": scored.pictures, "boxes": scored.truths}
    if scored.truths:
        recall, precision = hits / scored.truths, hits / max(1, shown)
        result["ap50"] = round(average_precision(scored), 4)
        result["recall"], result["precision"] = round(recall, 4), round(precision, 4)
        result["f1"] = round(2 * recall * precision / max(1e-9, recall + precision), 4)
    result["fp_per_image"] = round((shown - hits) / max(1, scored.pictures), 4)
    return result


def average_precision(scored: Scored) -> float:
    """Return the area under the precision envelope over recall, all points (VOC 2010; Darknet's `map`)."""
    hits = np.cumsum(scored.hits)
    recall = np.concatenate([[0.0], hits / scored.truths])
    precision = np.concatenate([hits / np.arange(1, len(hits) + 1), [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall) * envelope[:-1]))


def choose_threshold(tuned: dict[str, Scored], fp_limit: float = 0.1) -> float:
    """Return the threshold of the best mean F1 that gives at most `fp_limit` false positives a lesion-free frame."""
    best, best_f1 = 0.5, -1.0
    for threshold in np.arange(0.05, 0.91, 0.025):
        at = {name: figures(scored, float(threshold)) for name, scored in tuned.items()}
        f1 = float(np.mean([f["f1"] for f in at.values() if "f1" in f]))
        quiet = all(f["fp_per_image"] <= fp_limit for f in at.values() if "f1" not in f)
        if quiet and f1 > best_f1:
            best, best_f1 = round(float(threshold), 3), f1
    return best


def sources(data: Path, split: str) -> Iterator[tuple[str, Iterator[Picture]]]:
    """Name and open everything that a split ("tune" or "test") holds."""
    yield "drawn", drawn(split)
    for name, source in SOURCES.items():
        yield name, source(data, split)
    yield "itobos_tiled", (tile for picture in SOURCES["itobos"](data, split) for tile in tiles(picture))


def drawn(split: str, count: int = 120) -> Iterator[Picture]:
    """Draw scenes that no pack holds, 640 × 480 px, as a camera sees a limb."""
    for n in range(count):
        rng = np.random.default_rng((DRAWN_SEED[split], n))
        scene = draw_skin(rng, 640, 480, px_per_mm=float(rng.uniform(4.0, 10.0)))
        yield Picture(photograph(rng, scene.image), scene.boxes, NONE, "drawn")


def tiles(picture: Picture) -> Iterator[Picture]:
    """Cut a wide picture into overlapping squares at full resolution; boxes cut by half or more are ignored."""
    height, width = picture.image.shape[:2]
    for top in range(0, max(1, height - TILE_STEP_PX // 2), TILE_STEP_PX):
        for left in range(0, max(1, width - TILE_STEP_PX // 2), TILE_STEP_PX):
            y, x = max(0, min(top, height - TILE_PX)), max(0, min(left, width - TILE_PX))
            shift = np.asarray([x, y, x, y], np.float32)
            image = picture.image[y : y + TILE_PX, x : x + TILE_PX]
            moved, rest = picture.boxes - shift, picture.ignored - shift
            seen = clip(moved, TILE_PX, TILE_PX)
            whole = area(seen) >= 0.5 * area(moved)
            yield Picture(image, seen[whole], clip(np.concatenate([rest, moved[~whole]]), TILE_PX, TILE_PX), "itobos")


def recording(video: Path) -> Iterator[Picture]:
    """Yield the frames of a drawn recording with the truth of the JSON beside it."""
    try:
        frames = json.loads(video.with_suffix(".json").read_text(encoding="utf-8"))["frames"]
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"{video} has no readable truth beside it: {error}") from error
    film = cv2.VideoCapture(str(video))
    for frame in frames:
        good, image = film.read()
        if not good:
            raise SourceError(f"{video} ends before frame {frame['seq']}")
        boxes = [lesion["box"] for lesion in frame["lesions"]]
        yield Picture(np.asarray(image, np.uint8), np.asarray(boxes, np.float32).reshape(-1, 4), NONE, "sample")
    film.release()
