"""Figures of a classifier: accuracy, balanced accuracy, AUC, calibration error.

Scores are (N, C), logits or probabilities as said; truth is (N,) class indices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from derma_common.preprocess import softmax

Scores = npt.NDArray[np.float32]
Truth = npt.NDArray[np.int64]

ECE_BINS = 15


def accuracy(scores: Scores, truth: Truth) -> float:
    """Return the share of pictures whose best-scored class is the true one."""
    return float((scores.argmax(axis=1) == truth).mean())


def sensitivities(scores: Scores, truth: Truth) -> dict[int, float]:
    """Return class index -> share of its pictures that are found, for the classes that occur."""
    found = scores.argmax(axis=1)
    return {int(c): float((found[truth == c] == c).mean()) for c in np.unique(truth)}


def balanced_accuracy(scores: Scores, truth: Truth) -> float:
    """Return the mean sensitivity over the classes that occur (BMA of ISIC 2019)."""
    return float(np.mean(list(sensitivities(scores, truth).values())))


def auroc(scores: npt.NDArray[Any], positive: npt.NDArray[np.bool_]) -> float:
    """Return the chance that a positive scores above a negative, ties counting half (Mann-Whitney)."""
    values, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    del values
    mean_rank = np.cumsum(counts) - (counts - 1) / 2.0
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    rank_sum = mean_rank[inverse][positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2.0) / (n_positive * n_negative))


def macro_auc(probabilities: Scores, truth: Truth) -> float:
    """Return the mean one-against-rest AUC over the classes that occur."""
    return float(np.mean([auroc(probabilities[:, c], truth == c) for c in np.unique(truth)]))


def calibration_error(probabilities: Scores, truth: Truth) -> float:
    """Return the expected calibration error over 15 equal bins of confidence (Guo et al. 2017, eq. 3)."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gaps = [abs(correct[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(np.sum(gaps))


def negative_log_likelihood(logits: Scores, truth: Truth, temperature: float) -> float:
    """Return the mean negative log likelihood of the true classes at a temperature."""
    chance = softmax(logits, temperature)[np.arange(len(truth)), truth]
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


def bootstrap_interval(
    figure: Callable[[Scores, Truth], float], scores: Scores, truth: Truth, groups: Sequence[str], draws: int = 500
) -> tuple[float, float]:
    """Return the 95 % interval of a figure when whole groups (lesions, patients) are drawn with replacement."""
    names, member_of = np.unique(groups, return_inverse=True)
    members = np.split(np.argsort(member_of, kind="stable"), np.cumsum(np.bincount(member_of))[:-1])
    rng = np.random.default_rng(0)
    values = []
    for _ in range(draws):
        chosen = np.concatenate([members[g] for g in rng.integers(0, len(names), len(names))])
        values.append(figure(scores[chosen], truth[chosen]))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
