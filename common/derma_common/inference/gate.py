"""Whether an engine may serve: it must say of real pictures what its network says, within stated tolerances.

Builders fuse, reorder and round; some builds are wrong. So the answers are compared, not the arithmetic: boxes and
scores of a detector, probabilities of a classifier, through the same decoders that serve. int8 moves every number a
little, so there the far ends of the differences may be worse, and what counts besides is that the accuracy stays: the
detector's F1 against the known boxes, the classifier's first choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from derma_common.boxes import Boxes, iou, match
from derma_common.inference.card import ModelCard
from derma_common.inference.classification import Classifier
from derma_common.inference.detection import Detections, Detector
from derma_common.inference.examples import Example
from derma_common.inference.runner import Runner
from derma_common.preprocess import square_around

SAME_IOU = 0.5
SAMPLES = 500  # of the bootstrap
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tolerance:
    """What is allowed; `percentile` of all differences must be within, 100: every one."""

    percentile: float
    score: float  # difference of a box's score, and of a probability
    iou: float  # of a box with itself
    unmatched: float  # share of boxes that only one of the two shows
    lost: float  # accuracy: the lower end of its 95 % interval may lie so far below 0


TOLERANCES = {
    # a box whose score lies at the threshold may fall on either side of it: F1 is not asked to be the same
    "fp32": Tolerance(100, 0.01, 0.98, 0.0, 0.02),
    "fp16": Tolerance(100, 0.03, 0.95, 0.0, 0.02),
    "int8": Tolerance(95, 0.10, 0.85, 0.05, 0.05),
}


@dataclass(frozen=True)
class Verdict:
    """Whether an engine passed, why not, and what was measured."""

    passed: bool
    reasons: tuple[str, ...]
    figures: dict[str, float] = field(default_factory=dict)


def judge(
    card: ModelCard, reference: Runner, candidate: Runner, precision: str, pictures: Sequence[Example]
) -> Verdict:
    """Compare two runners of one model on pictures, with the tolerances of a precision. Neither is closed."""
    tolerance = TOLERANCES[precision]
    compare = _compare_detectors if card.kind == "detector" else _compare_classifiers
    try:
        figures = compare(card, reference, candidate, tolerance, pictures)
    except FloatingPointError as error:
        return Verdict(False, (str(error),))
    if not figures["compared"]:
        return Verdict(False, ("there is nothing to compare: the network finds nothing in these pictures",), figures)
    limits = {
        "difference": (tolerance.score, "scores differ by"),
        "unmatched": (tolerance.unmatched, "share of boxes that only one of the two shows:"),
        "lost": (tolerance.lost, "accuracy may be lower by"),
    }
    reasons = [
        f"{says} {figures[name]:.3g}, allowed {limit:g}"
        for name, (limit, says) in limits.items()
        if name in figures and not figures[name] <= limit
    ]
    if not figures.get("iou", 1.0) >= tolerance.iou:
        reasons.append(f"boxes overlap by {figures['iou']:.3g} only, wanted {tolerance.iou:g}")
    return Verdict(not reasons, tuple(reasons), figures)


def _compare_detectors(
    card: ModelCard, reference: Runner, candidate: Runner, tolerance: Tolerance, pictures: Sequence[Example]
) -> dict[str, float]:
    low, high = card.score_threshold / 2, card.score_threshold
    first, second = Detector(card, reference), Detector(card, candidate)
    differences, overlaps, boxes, unmatched = [], [], 0, 0
    counts: list[list[int]] = []
    for picture in pictures:
        mine, other = first.detect(picture.image, low), second.detect(picture.image, low)
        for one, two in ((mine, other), (other, mine)):
            shown = one.boxes[one.scores > high]
            pairs = match(shown, two.boxes, SAME_IOU)
            boxes += len(shown)
            unmatched += len(shown) - len(pairs)
            differences += [abs(float(one.scores[i] - two.scores[j])) for i, j in pairs]
            overlaps += [float(iou(shown[i : i + 1], two.boxes[j : j + 1])[0, 0]) for i, j in pairs]
        if picture.boxes is not None:
            counts.append([*_hits(mine, picture.boxes, high), *_hits(other, picture.boxes, high)])
    figures = {
        "pictures": len(pictures), "compared": boxes, "unmatched": unmatched / max(1, boxes),
        "difference": _percentile(differences, tolerance.percentile),
        "iou": 1.0 - _percentile([1.0 - value for value in overlaps], tolerance.percentile),
    }  # fmt: skip
    return figures | (_accuracy(np.asarray(counts, np.float64)) if counts else {})


def _hits(found: Detections, truth: Boxes, threshold: float) -> tuple[int, int]:
    """Return how many boxes are right, and how many there are in both lists together: F1 = 2 · right / all."""
    shown = found.boxes[found.scores > threshold]
    return len(match(shown, truth, SAME_IOU)), len(shown) + len(truth)


def _accuracy(counts: Floats) -> dict[str, float]:
    """Return both F1 and how much may be lost, of counts (P, 4): right and all by the reference and by the candidate.

    Pictures are drawn with replacement, the same for both (a paired bootstrap, Efron & Tibshirani 1993, §8.3).
    """
    drawn = np.random.default_rng(0).integers(len(counts), size=(SAMPLES, len(counts)))
    values = _f1(counts[drawn].sum(axis=1))
    low = float(np.percentile(values[:, 1] - values[:, 0], 2.5))
    reference, candidate = _f1(counts.sum(axis=0)[None])[0]
    return {"f1_reference": float(reference), "f1": float(candidate), "lost": max(0.0, -low)}


def _f1(counts: Floats) -> Floats:
    return np.asarray(2 * counts[:, [0, 2]] / np.maximum(counts[:, [1, 3]], 1))


def _compare_classifiers(
    card: ModelCard, reference: Runner, candidate: Runner, tolerance: Tolerance, pictures: Sequence[Example]
) -> dict[str, float]:
    first, second = Classifier(card, reference), Classifier(card, candidate)
    rows: list[tuple[Floats, Floats]] = []
    for picture in pictures:
        squares = [square_around(box, card.crop_margin) for box in picture.squares]
        pair = (first.classify_squares(picture.image, squares), second.classify_squares(picture.image, squares))
        rows += [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(*pair, strict=True)]
    differences = [float(np.abs(a - b).max()) for a, b in rows]
    # a near tie may fall either way; a clear first choice may not
    moved = [a.max() - a[b.argmax()] > 2 * tolerance.score for a, b in rows]
    return {
        "pictures": len(pictures), "compared": len(rows),
        "difference": _percentile(differences, tolerance.percentile), "lost": float(np.mean(moved)) if moved else 0.0,
    }  # fmt: skip


def _percentile(values: Sequence[float], percentile: float) -> float:
    return float(np.percentile(values, percentile)) if values else 0.0
