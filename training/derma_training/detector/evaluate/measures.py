"""Numbers out of matches: AP as COCO, what holds at a threshold, FROC, bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from derma_training.detector.evaluate.matching import Floats, Matches

RECALLS = np.linspace(0.0, 1.0, 101)
FROC_POINTS = 50
FIXED_RECALLS = (0.5, 0.6, 0.7, 0.8, 0.9)
INTERVAL = (2.5, 97.5)  # percentiles


def figures(matches: Matches, threshold: float) -> dict[str, Any]:
    """Return n, AP, and what holds above the threshold at IoU ≥ 0.5; what has no meaning without lesions is None."""
    weights = np.ones(len(matches.truths))
    found = _at(matches, threshold, weights)
    ap = [average_precision(matches, level) for level in range(len(matches.hits))]
    return {
        "n_images": len(matches.truths),
        "n_boxes": int(matches.truths.sum()),
        "ap": None if ap[0] is None else _rounded(float(np.mean([v for v in ap if v is not None]))),
        "ap50": _rounded(ap[0]),
        **{name: _rounded(value) for name, value in found.items()},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _at(matches: Matches, threshold: float, weights: Floats) -> dict[str, float | None]:
    """Return recall, precision, F1 and false positives per picture above a score; a picture counts `weights` times."""
    above = (matches.scores > threshold) * weights[matches.picture]
    hits, false = float(above @ matches.hits[0]), float(above @ matches.false[0])
    truths, pictures = float(weights @ matches.truths), float(weights.sum())
    lesions = truths > 0
    return {
        "recall": hits / truths if lesions else None,
        "precision": hits / (hits + false) if hits + false else 0.0 if lesions else None,
        "f1": 2 * hits / (hits + false + truths) if lesions else None,
        "fp_per_image": false / pictures if pictures else None,
    }


def average_precision(matches: Matches, level: int = 0, weights: Floats | None = None) -> float | None:
    """Return AP at IoU threshold `level`: precision envelope at 101 recalls (COCO); None without lesions."""
    recall, precision = _curve(matches, level, weights)
    if recall is None:
        return None
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(envelope[np.searchsorted(recall, RECALLS, side="left")].mean())


def _curve(matches: Matches, level: int, weights: Floats | None) -> tuple[Floats | None, Floats]:
    times = np.ones(len(matches.truths)) if weights is None else weights
    truths = float(times @ matches.truths)
    each = times[matches.picture]
    hits, false = np.cumsum(each * matches.hits[level]), np.cumsum(each * matches.false[level])
    precision = hits / np.maximum(hits + false, 1e-12)
    return (hits / truths if truths else None), precision


def precision_recall(matches: Matches) -> tuple[Floats, Floats, Floats]:
    """Return recall, precision and score (D,) each after so many detections, at IoU ≥ 0.5; empty without lesions."""
    recall, precision = _curve(matches, 0, None)
    if recall is None:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    return recall, precision, matches.scores


def froc(matches: Matches) -> list[dict[str, float]]:
    """Return the free-response curve: false positives per picture, recall and score, at most FROC_POINTS points.

    Bunch et al. 1978. Each point is the best recall for its false positives.
    """
    recall, _ = _curve(matches, 0, None)
    if recall is None or not len(recall):
        return []
    false = np.cumsum(matches.false[0])
    last = np.append(np.flatnonzero(np.diff(false)), len(false) - 1)  # before the next false positive
    chosen = last[np.unique(np.round(np.geomspace(1, len(last), FROC_POINTS)).astype(int) - 1)]
    return [
        {
            "fp_per_image": round(float(false[i]) / len(matches.truths), 4),
            "recall": round(float(recall[i]), 4),
            "threshold": round(float(matches.scores[i]), 4),
        }
        for i in chosen
    ]


def fp_at_recall(matches: Matches, recalls: Sequence[float] = FIXED_RECALLS) -> dict[str, float | None]:
    """Return false positives per picture at the score where each recall is reached; None where it never is."""
    recall, _ = _curve(matches, 0, None)
    false = np.cumsum(matches.false[0]) / max(1, len(matches.truths))
    reached: dict[str, float | None] = {}
    for wanted in recalls:
        i = len(false) if recall is None else int(np.searchsorted(recall, wanted - 1e-9, side="left"))
        reached[f"{wanted:g}"] = round(float(false[i]), 4) if i < len(false) else None
    return reached


def fp_at_recall_of(
    lesions: Matches, skin: Matches, recalls: Sequence[float] = FIXED_RECALLS
) -> dict[str, float | None]:
    """Return false positives per lesion-free picture of `skin` at the scores where `lesions` reach each recall."""
    recall, _, scores = precision_recall(lesions)
    pictures = max(1, len(skin.truths))
    reached: dict[str, float | None] = {}
    for wanted in recalls:
        i = int(np.searchsorted(recall, wanted - 1e-9, side="left"))
        above = skin.false[0] & (skin.scores >= scores[i]) if i < len(scores) else None
        reached[f"{wanted:g}"] = None if above is None else round(float(above.sum()) / pictures, 4)
    return reached


def intervals(matches: Matches, threshold: float, samples: int, seed: int = 0) -> dict[str, list[float] | None]:
    """Return 95 % percentile intervals by drawing groups (patients, lesions, else pictures) with replacement.

    Efron & Tibshirani 1993, §13.3. None where every sample lacked lesions.
    """
    rng = np.random.default_rng(seed)
    _, group = np.unique(np.asarray(matches.groups), return_inverse=True)
    count = int(group.max()) + 1
    drawn: dict[str, list[float]] = {}
    for _ in range(samples):
        weights = np.bincount(rng.integers(count, size=count), minlength=count)[group].astype(np.float64)
        ap = [average_precision(matches, level, weights) for level in range(len(matches.hits))]
        values = {"ap": None if ap[0] is None else float(np.mean([v for v in ap if v is not None])), "ap50": ap[0]}
        for name, value in (values | _at(matches, threshold, weights)).items():
            drawn.setdefault(name, []).extend([] if value is None else [value])
    return {
        name: [round(float(v), 4) for v in np.percentile(values, INTERVAL)] if values else None
        for name, values in drawn.items()
    }


def choose_threshold(tuned: Mapping[str, Matches], fp_limit: float = 0.1) -> float:
    """Return the score of the best mean F1 over the sets with lesions that keeps the sets without them quiet.

    Quiet: at most `fp_limit` false positives per picture. Without a quiet threshold it is 0.5.
    """
    everywhere = [np.ones(len(matches.truths)) for matches in tuned.values()]
    best, best_f1 = 0.5, -1.0
    for threshold in np.arange(0.05, 0.91, 0.025):
        at = [_at(matches, float(threshold), w) for matches, w in zip(tuned.values(), everywhere, strict=True)]
        f1 = float(np.mean([f["f1"] for f in at if f["f1"] is not None]))
        quiet = all((f["fp_per_image"] or 0.0) <= fp_limit for f in at if f["f1"] is None)
        if quiet and f1 > best_f1:
            best, best_f1 = round(float(threshold), 3), f1
    return best
