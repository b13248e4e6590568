"""Figures of a classifier over all classes: accuracy, balanced accuracy, AUC, calibration.

Scores are (N, C), logits or probabilities as said; truth is (N,) class indices. The figures of one class against
the rest are in `metrics_binary`, confidence intervals in `metrics_bootstrap`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from derma_common.preprocess import softmax
from derma_training.classifier.metrics_binary import auroc

Scores = npt.NDArray[np.floating[Any]]
Truth = npt.NDArray[np.int64]

ECE_BINS = 15
UNDECIDED = -1


def decisions(scores: Scores) -> Truth:
    """Return the best-scored class of each picture, UNDECIDED where several share the best score.

    As the ISIC scorer does: a tie is always wrong.
    """
    tied = (scores == scores.max(axis=1, keepdims=True)).sum(axis=1) > 1
    return np.asarray(np.where(tied, UNDECIDED, scores.argmax(axis=1)), dtype=np.int64)


def accuracy(scores: Scores, truth: Truth) -> float:
    """Return the share of pictures whose best-scored class is the true one."""
    return float((decisions(scores) == truth).mean())


def sensitivities(scores: Scores, truth: Truth) -> dict[int, float]:
    """Return class index -> share of its pictures that are found, for the classes that occur."""
    found = decisions(scores)
    return {int(c): float((found[truth == c] == c).mean()) for c in np.unique(truth)}


def balanced_accuracy(scores: Scores, truth: Truth) -> float:
    """Return the mean sensitivity over the classes that occur (BMA of ISIC 2019)."""
    return float(np.mean(list(sensitivities(scores, truth).values())))


def macro_auc(probabilities: Scores, truth: Truth) -> float:
    """Return the mean one-against-rest AUC over the classes that occur; not a number with a single class."""
    return float(np.mean([auroc(probabilities[:, c], truth == c) for c in np.unique(truth)]))


def confusion(scores: Scores, truth: Truth) -> npt.NDArray[np.int64]:
    """Return counts (C, C + 1): true class by row, decision by column, the last column being undecided."""
    classes = scores.shape[1]
    counts = np.zeros((classes, classes + 1), dtype=np.int64)
    np.add.at(counts, (truth, decisions(scores)), 1)  # −1 is the last column
    return counts


def reliability(probabilities: Scores, truth: Truth) -> tuple[Truth, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return count, mean confidence and accuracy of each of 15 equal bins (lo, hi] of confidence, each (15,).

    An empty bin has confidence and accuracy 0.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = decisions(probabilities) == truth
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    counts = np.bincount(bins, minlength=ECE_BINS)
    whole = np.maximum(counts, 1)
    mean_confidence = np.bincount(bins, weights=confidence, minlength=ECE_BINS) / whole
    return counts, mean_confidence, np.bincount(bins, weights=correct, minlength=ECE_BINS) / whole


def calibration_error(probabilities: Scores, truth: Truth) -> float:
    """Return the expected calibration error over 15 equal bins of confidence (Guo et al. 2017, eq. 3)."""
    counts, confidence, correct = reliability(probabilities, truth)
    return float(np.sum(counts * np.abs(correct - confidence)) / len(truth))


def negative_log_likelihood(logits: Scores, truth: Truth, temperature: float) -> float:
    """Return the mean negative log likelihood of the true classes at a temperature."""
    chance = softmax(logits.astype(np.float32), temperature)[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(chance.astype(np.float64), 1e-30)).mean())


def fit_temperature(logits: Scores, truth: Truth) -> float:
    """Return the temperature in 0.05..20 with the least negative log likelihood (golden section on its logarithm)."""
    ratio = (np.sqrt(5.0) - 1.0) / 2.0
    low, high = float(np.log(0.05)), float(np.log(20.0))
    while high - low > 1e-4:
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        loss_a, loss_b = (negative_log_likelihood(logits, truth, float(np.exp(t))) for t in (a, b))
        low, high = (low, b) if loss_a < loss_b else (a, high)
    return float(np.exp((low + high) / 2.0))
