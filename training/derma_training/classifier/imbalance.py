"""Classes of unequal size: how often each picture is drawn, and what each class's mistakes cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from derma_training.classifier.recipes import ClassWeights, Emphasis, Recipe, Sampling

Floats = npt.NDArray[np.float64]


def class_draws(counts: Mapping[str, int], sampling: Sampling, emphasis: Emphasis = ()) -> dict[str, float]:
    """Return how often each class is drawn, as a share: n, √n or all alike, times its emphasis."""
    factor = dict(emphasis)
    mass = {
        name: {"natural": n, "sqrt": n**0.5, "over": 1.0, "under": 1.0}[sampling] * factor.get(name, 1.0)
        for name, n in counts.items()
    }
    return {name: m / sum(mass.values()) for name, m in mass.items()}


def epoch_order(
    labels: Sequence[str],
    sampling: Sampling,
    rng: np.random.Generator,
    emphasis: Emphasis = (),
    within: npt.ArrayLike | None = None,
) -> npt.NDArray[np.int64]:
    """Return the indices of one epoch, in order.

    "natural": every picture once. "sqrt": as many draws, a class as often as the root of its size. "over": every class
    as often as the largest, each of its pictures at least once. "under": every class as often as the smallest.
    With an emphasis, pictures are drawn with replacement, classes as `class_draws` says; `within` (N,) is how much
    more often than another picture of its class each is drawn.
    """
    by_class = {name: np.flatnonzero(np.asarray(labels) == name) for name in sorted(set(labels))}
    uneven = bool(emphasis) or within is not None
    if sampling == "natural" and not uneven:
        return rng.permutation(len(labels))
    if sampling == "sqrt" or uneven:
        factors = np.ones(len(labels)) if within is None else np.asarray(within, dtype=np.float64)
        shares = class_draws({name: len(indices) for name, indices in by_class.items()}, sampling, emphasis)
        chance = np.empty(len(labels))
        for name, indices in by_class.items():
            chance[indices] = shares[name] * factors[indices] / factors[indices].sum()
        n = epoch_length(labels, sampling)
        return np.asarray(rng.choice(len(labels), n, p=chance / chance.sum()), dtype=np.int64)
    sizes = [len(indices) for indices in by_class.values()]
    if sampling == "under":
        chosen = [rng.choice(indices, min(sizes), replace=False) for indices in by_class.values()]
    else:
        chosen = [_repeated(indices, max(sizes), rng) for indices in by_class.values()]
    return rng.permutation(np.concatenate(chosen))


def source_factors(sources: Sequence[str], emphasis: Emphasis) -> Floats | None:
    """Return how much more often each picture (N,) is drawn for its source's sake; None without emphasis."""
    factor = dict(emphasis)
    return np.asarray([factor.get(source, 1.0) for source in sources]) if factor else None


def epoch_length(labels: Sequence[str], sampling: Sampling) -> int:
    """Return how many pictures `epoch_order` gives."""
    sizes = [list(labels).count(name) for name in set(labels)]
    if sampling in ("natural", "sqrt"):
        return len(labels)
    return len(sizes) * (max(sizes) if sampling == "over" else min(sizes))


def _repeated(indices: npt.NDArray[np.int64], n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    whole, rest = divmod(n, len(indices))
    return np.concatenate([np.tile(indices, whole), rng.choice(indices, rest, replace=False)])


def effective_number(n: Floats, beta: float) -> Floats:
    """Return the effective number of samples, (1 − βⁿ) / (1 − β) (Cui et al. 2019, eq. 2); n for β = 1."""
    if beta == 1.0:
        return n
    return np.asarray((1.0 - np.power(beta, n)) / (1.0 - beta), dtype=np.float64)


def class_weights(counts: Sequence[int], kind: ClassWeights, beta: float = 0.999) -> Floats:
    """Return what a mistake on each class costs, mean 1: all the same, 1 / n, or 1 / effective number.

    Steppan & Hanke 2021 print the effective number itself as the weight; its inverse is meant (Cui et al. 2019).
    """
    n = np.asarray(counts, dtype=np.float64)
    if kind == "none":
        return np.ones(len(n))
    weights = 1.0 / (n if kind == "inverse" else effective_number(n, beta))
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def learned_counts(pictures: Mapping[str, int], recipe: Recipe) -> dict[str, int]:
    """Return counts in proportion to the prior that a network learns: draws × cost of each class, Σ as pictures.

    This, not the number of pictures, is what prior rescaling must divide by; they agree for natural sampling.
    """
    drawn = class_draws(pictures, recipe.sampling, recipe.emphasis)
    costs = class_weights(list(pictures.values()), recipe.class_weights, recipe.beta)
    mass = np.asarray(list(drawn.values())) * costs
    total = sum(pictures.values())
    return {name: max(1, round(m)) for name, m in zip(pictures, total * mass / mass.sum(), strict=True)}
