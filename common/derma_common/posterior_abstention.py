"""When not to answer: scores of how little a network knows a picture, and the threshold for a stated risk.

All scores are larger for pictures like those trained on. None of them knows what it has never been compared with: a
lesion outside the classes often looks to a network like one inside (Yang et al. 2022, OpenOOD: near-OOD stays hard).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from derma_common.errors import ConfigError

Array = npt.NDArray[np.float64]
COVERAGES = np.arange(20, 0, -1) / 20.0  # fixed beforehand, so that trying them all has a known price
_ROWS = 256  # of the distance matrix held at a time


def max_softmax(probabilities: npt.ArrayLike) -> Array:
    """Return the largest probability (N,) of probabilities (N, C) (Hendrycks & Gimpel 2017)."""
    return np.asarray(np.asarray(probabilities, dtype=np.float64).max(axis=1))


def negative_energy(logits: npt.ArrayLike, temperature: float = 1.0) -> Array:
    """Return T · log Σ exp(z / T), (N,), of logits z (N, C) (Liu et al. 2020, its sign turned)."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    top = scaled.max(axis=1)
    return np.asarray(temperature * (top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))))


def nearest_neighbour_score(features: npt.ArrayLike, known: npt.ArrayLike, k: int = 50) -> Array:
    """Return minus the squared distance (N,) of features (N, D) to the k-th nearest of `known` (M, D).

    `known` are features of training pictures; all are scaled to length 1 first (Sun et al. 2022). Raises ValueError if
    M < k.
    """
    query, bank = _unit(features), _unit(known)
    if not 1 <= k <= len(bank):
        raise ValueError(f"the {k}-th nearest of {len(bank)} features does not exist")
    nearest = []
    for start in range(0, len(query), _ROWS):
        squared = 2.0 - 2.0 * query[start : start + _ROWS] @ bank.T
        nearest.append(np.partition(squared, k - 1, axis=1)[:, k - 1])
    return -np.concatenate(nearest) if nearest else np.empty(0)


def _unit(features: npt.ArrayLike) -> Array:
    array = np.asarray(features, dtype=np.float64)
    return np.asarray(array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-12))


def risk_coverage(score: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """Return thresholds, coverages and risks, (K,) each, one per distinct score (N,), from the highest down.

    At a threshold t the answers with score ≥ t are given; coverage is their share, risk the share of these that is
    wrong (`correct` (N,) is false).
    """
    scores, wrong = np.asarray(score, dtype=np.float64), ~np.asarray(correct, dtype=np.bool_)
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))  # of each run of equal scores
    given = last + 1.0
    return scores[order][last], given / len(scores), np.cumsum(wrong[order])[last] / given


@dataclass(frozen=True)
class Abstention:
    """Answer if score > `threshold`.

    On the held-out pictures the share `coverage` is answered and `risk` of these answers is wrong; `bound` is the
    upper confidence bound of the risk, below the stated one.
    """

    threshold: float
    coverage: float
    risk: float
    bound: float


def abstention_threshold(
    score: npt.ArrayLike, correct: npt.ArrayLike, risk: float, error_rate: float = 0.05
) -> Abstention:
    """Return the threshold that answers most while the share of wrong answers stays below `risk`.

    `score` (N,) and `correct` (N,) belong to held-out pictures. Twenty coverages, 100 % to 5 %, are tried; each
    gets the exact binomial bound (Clopper & Pearson 1934) at `error_rate` / 20, so that with probability
    1 − `error_rate` over the draw of these pictures all twenty bounds hold, and with them the chosen one
    (selective risk: Geifman & El-Yaniv 2017; testing a fixed list: Angelopoulos et al. 2021).

    The guarantee holds for independent pictures from where the held-out ones come from: give one picture per lesion
    or patient, used for nothing else. It is for all answers together, not per class (missed melanomas are to be
    counted apart), and there is none for another camera, clinic or skin tone.

    Raises ConfigError when no threshold keeps the risk, or `risk` or `error_rate` is not between 0 and 1.
    """
    if not (0.0 < risk < 1.0 and 0.0 < error_rate < 1.0):
        raise ConfigError(f"risk {risk:g} and error rate {error_rate:g} must lie between 0 and 1")
    scores, right = np.asarray(score, dtype=np.float64), np.asarray(correct, dtype=np.bool_)
    ranked = np.sort(scores)[::-1]
    lowest = 1.0
    for coverage in COVERAGES:
        n = int(coverage * len(scores))
        threshold = float(ranked[n]) if n < len(scores) else -math.inf
        given = scores > threshold  # with ties fewer than n: exactly those that are above
        answered, wrong = int(given.sum()), int((given & ~right).sum())
        bound = binomial_upper_bound(wrong, answered, error_rate / len(COVERAGES))
        lowest = min(lowest, bound)
        if bound < risk:
            return Abstention(threshold, answered / len(scores), wrong / answered, bound)
    raise ConfigError(
        f"no threshold keeps the risk below {risk:g}: the lowest that {len(scores)} held-out pictures can assure is "
        f"{lowest:.3f}; state a higher risk or hold out more pictures"
    )


def binomial_upper_bound(events: int, trials: int, error_rate: float) -> float:
    """Return the p at which `events` or fewer of `trials` happen with probability `error_rate` (Clopper & Pearson)."""
    if events >= trials:
        return 1.0
    logs = np.log(np.arange(1, trials + 1))
    factorials = np.concatenate([[0.0], np.cumsum(logs)])
    i = np.arange(events + 1)
    choose = factorials[trials] - factorials[i] - factorials[trials - i]
    low, high = events / trials, 1.0
    while high - low > 1e-12:
        p = (low + high) / 2.0
        tail = np.exp(choose + i * math.log(p) + (trials - i) * math.log1p(-p)).sum()
        low, high = (p, high) if tail > error_rate else (low, p)
    return high
