"""Confidence intervals: whole lesions or patients are drawn again, since their pictures are not independent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from derma_training.classifier.metrics import Scores, Truth

Floats = npt.NDArray[np.float64]

DRAWS = 500
LEVELS = (0.025, 0.975)


def bootstrap_intervals(
    figures: Callable[[Scores, Truth], Sequence[float]],
    scores: Scores,
    truth: Truth,
    groups: Sequence[str],
    draws: int = DRAWS,
) -> Floats:
    """Return the 95 % intervals (K, 2) of K figures when groups are drawn with replacement (Efron, percentiles).

    scores: (N, C), truth: (N,), groups: N names. A draw in which a figure is not a number does not count for it.
    """
    names, member_of = np.unique(np.asarray(groups), return_inverse=True)
    members = np.split(np.argsort(member_of, kind="stable"), np.cumsum(np.bincount(member_of))[:-1])
    rng = np.random.default_rng(0)
    values = []
    for _ in range(draws):
        chosen = np.concatenate([members[g] for g in rng.integers(0, len(names), len(names))])
        values.append(figures(scores[chosen], truth[chosen]))
    columns = [column[np.isfinite(column)] for column in np.asarray(values, dtype=np.float64).T]
    return np.asarray([np.quantile(c, LEVELS) if len(c) else (np.nan, np.nan) for c in columns])


def bootstrap_interval(
    figure: Callable[[Scores, Truth], float], scores: Scores, truth: Truth, groups: Sequence[str], draws: int = DRAWS
) -> tuple[float, float]:
    """Return the 95 % interval of one figure, as `bootstrap_intervals`."""
    low, high = bootstrap_intervals(lambda s, t: [figure(s, t)], scores, truth, groups, draws)[0]
    return float(low), float(high)
