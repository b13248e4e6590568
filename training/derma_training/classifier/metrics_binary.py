"""Figures of one class against the rest: the columns of Table II of Steppan & Hanke 2021 (arXiv 2101.03814).

Defined as the scorer of the ISIC 2019 challenge defines them (isic-challenge-scoring 5.6.0), its conventions for
0/0 included: a share of nothing is 1, except that AUCs without positives or without negatives are not numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating[Any]]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

THRESHOLD = 0.5  # a class is said to be present when its probability is above; rows need not sum to 1
MIN_SENSITIVITY = 0.8  # of auc80
COLUMNS = ("auc", "auc80", "ap", "accuracy", "sensitivity", "specificity", "dice", "ppv", "npv")


@dataclass(frozen=True)
class Curve:
    """What is found as the threshold falls: entry 0 calls nothing positive, the last calls everything positive.

    thresholds: (K,) descending, infinity first. hits, false_alarms: (K,) counts of scores ≥ threshold.
    """

    thresholds: Floats
    hits: Floats
    false_alarms: Floats

    @property
    def sensitivity(self) -> Floats:
        """Hits as a share of the positives; not a number without positives."""
        return self.hits / self.hits[-1] if self.hits[-1] else np.full_like(self.hits, np.nan)

    @property
    def fall_out(self) -> Floats:
        """False alarms as a share of the negatives; not a number without negatives."""
        alarms = self.false_alarms
        return alarms / alarms[-1] if alarms[-1] else np.full_like(alarms, np.nan)

    @property
    def precision(self) -> Floats:
        """Hits as a share of what is called positive, 1 where nothing is."""
        called = self.hits + self.false_alarms
        return np.divide(self.hits, called, out=np.ones_like(self.hits), where=called > 0)


def curve(scores: Scores, positive: Mask) -> Curve:
    """Return the counts at every distinct score. scores, positive: (N,)."""
    order = np.argsort(-scores, kind="stable")
    ordered, hit = scores[order].astype(np.float64), positive[order]
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True)) if len(ordered) else np.empty(0, np.intp)
    hits = np.cumsum(hit)[last].astype(np.float64)
    return Curve(
        np.concatenate([[np.inf], ordered[last]]),
        np.concatenate([[0.0], hits]),
        np.concatenate([[0.0], last + 1.0 - hits]),
    )


def auroc(scores: Scores, positive: Mask) -> float:
    """Return the chance that a positive scores above a negative, ties counting half (Mann-Whitney)."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2.0
    rank_sum = mean_rank[inverse][positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2.0) / (n_positive * n_negative))


def auc_above_sensitivity(scores: Scores, positive: Mask, sensitivity: float = MIN_SENSITIVITY) -> float:
    """Return the area under the ROC curve right of where it reaches a sensitivity, not normalised.

    A perfect classifier has 1, chance has (1 − sensitivity²) / 2.
    """
    points = curve(scores, positive)
    found, alarms = points.sensitivity, points.fall_out
    if np.isnan(found[-1]) or np.isnan(alarms[-1]):
        return float("nan")
    first = int(np.searchsorted(found, sensitivity, side="left"))
    start = np.interp(sensitivity, found[first - 1 : first + 1], alarms[first - 1 : first + 1])
    x, y = np.append(start, alarms[first:]), np.append(sensitivity, found[first:])
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2.0)


def average_precision(scores: Scores, positive: Mask) -> float:
    """Return Σ (Rₙ − Rₙ₋₁) Pₙ over the thresholds, in steps, not interpolated; 0 without positives."""
    points = curve(scores, positive)
    if not points.hits[-1]:
        return 0.0
    return float(np.sum(np.diff(points.sensitivity) * points.precision[1:]))


def class_table(probabilities: Scores, truth: npt.NDArray[np.int64]) -> dict[str, Floats]:
    """Return column -> (C,): each class of probabilities (N, C) against the rest; truth: (N,) class indices."""
    rows = [one_class(probabilities[:, c], truth == c) for c in range(probabilities.shape[1])]
    return {name: np.asarray([row[name] for row in rows]) for name in COLUMNS}


def one_class(scores: Scores, positive: Mask) -> dict[str, float]:
    """Return COLUMNS of one class; scores: (N,) in [0, 1], positive: (N,)."""
    return {
        "auc": auroc(scores, positive),
        "auc80": auc_above_sensitivity(scores, positive),
        "ap": average_precision(scores, positive),
        **at_threshold(scores, positive, THRESHOLD),
    }


def at_threshold(scores: Scores, positive: Mask, threshold: float) -> dict[str, float]:
    """Return the shares when scores strictly above the threshold are called positive."""
    called = scores > threshold
    tp, fp = int((called & positive).sum()), int((called & ~positive).sum())
    fn, tn = int((~called & positive).sum()), int((~called & ~positive).sum())
    return {
        "accuracy": _share(tp + tn, tp + tn + fp + fn),
        "sensitivity": _share(tp, tp + fn),
        "specificity": _share(tn, tn + fp),
        "dice": _share(2 * tp, 2 * tp + fp + fn),
        "ppv": _share(tp, tp + fp),
        "npv": _share(tn, tn + fn),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
