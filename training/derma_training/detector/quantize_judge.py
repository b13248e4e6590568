"""What int8 arithmetic changes: the same pictures through both models, box by box, and in average precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from derma_common.boxes import iou, match
from derma_common.inference.detection import Detections
from derma_training.detector.evaluate.looking import Seen
from derma_training.detector.evaluate.matching import match_all
from derma_training.detector.evaluate.measures import INTERVAL, average_precision

SAME_IOU = 0.5
SAMPLES = 1000  # of the bootstrap


def judge(before: Sequence[Seen], after: Sequence[Seen], threshold: float) -> dict[str, Any]:
    """Compare what two models found in the same pictures: agreement, and AP50 where there are boxes to be found."""
    pairs = [(a.found, b.found) for a, b in zip(before, after, strict=True)]
    report: dict[str, Any] = {"agreement": agreement(pairs, threshold)}
    if any(len(one.picture.boxes) for one in before):
        report["ap50"] = ap50(before, after)
    return report


def agreement(pairs: Sequence[tuple[Detections, Detections]], threshold: float) -> dict[str, Any]:
    """Return how the boxes of two models, down to a low score each, agree above `threshold`.

    `boxes` of the first above the threshold; `lost`: the second has none of IoU ≥ 0.5 above it; `new`: the other way
    round; differences of score and IoU of the boxes that the second has at any score.
    """
    boxes = lost = new = 0
    apart: list[float] = []
    overlaps: list[float] = []
    for first, second in pairs:
        shown, found = first.boxes[first.scores > threshold], second.boxes
        same = match(shown, found, SAME_IOU)
        kept = [(i, j) for i, j in same if second.scores[j] > threshold]
        boxes += len(shown)
        lost += len(shown) - len(kept)
        new += int((second.scores > threshold).sum()) - len(kept)
        apart += [abs(float(first.scores[i] - second.scores[j])) for i, j in same]
        overlaps += [float(iou(shown[i : i + 1], found[j : j + 1])[0, 0]) for i, j in same]
    return {
        "n_images": len(pairs), "threshold": threshold, "boxes": boxes, "lost": lost, "new": new,
        "score_difference": _spread(apart, 95), "iou": _spread(overlaps, 5),
    }  # fmt: skip


def _spread(values: Sequence[float], percentile: int) -> dict[str, float] | None:
    if not values:
        return None
    worst = max(values) if percentile > 50 else min(values)
    named = {"mean": float(np.mean(values)), f"p{percentile}": float(np.percentile(values, percentile)), "worst": worst}
    return {name: round(value, 4) for name, value in named.items()}


def ap50(before: Sequence[Seen], after: Sequence[Seen], samples: int = SAMPLES, seed: int = 0) -> dict[str, Any]:
    """Return AP50 of both models and of their difference, with 95 % intervals.

    Groups (patients, lesions, else pictures) are drawn with replacement, the same for both models (a paired
    bootstrap, Efron & Tibshirani 1993, §8.3).
    """
    matches = match_all(before), match_all(after)
    _, group = np.unique(np.asarray(matches[0].groups), return_inverse=True)
    count, rng = int(group.max()) + 1, np.random.default_rng(seed)

    def precisions(weights: npt.NDArray[np.float64]) -> list[float | None]:
        return [average_precision(one, 0, weights) for one in matches]

    drawn: list[list[float | None]] = []
    for _ in range(samples):
        weights = np.bincount(rng.integers(count, size=count), minlength=count)[group]
        drawn.append(precisions(weights.astype(np.float64)))
    values = np.asarray([pair for pair in drawn if None not in pair], np.float64)  # a sample may lack lesions
    columns = {"fp32": values[:, 0], "int8": values[:, 1], "difference": values[:, 1] - values[:, 0]}
    whole = np.asarray(precisions(np.ones(len(group))), np.float64)
    middles = {"fp32": whole[0], "int8": whole[1], "difference": whole[1] - whole[0]}
    return {
        name: {
            "value": round(float(middles[name]), 4),
            "interval_95": [round(float(v), 4) for v in np.percentile(column, INTERVAL)],
        }
        for name, column in columns.items()
    }
