"""t-SNE: last-layer features in two dimensions, so that neighbours stay neighbours.

Exact, as in van der Maaten & Hinton, "Visualizing Data using t-SNE", JMLR 9 (2008): a picture for a report of at
most a few thousand points needs no tree and no library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]

ITERATIONS = 750
EXAGGERATION, EXAGGERATED_FOR = 12.0, 250
TINY = 1e-12


def tsne(features: Floats, perplexity: float = 30.0, seed: int = 0) -> Floats:
    """Return (N, 2) positions of features (N, D), N ≥ 4; a smaller N than 3 × perplexity lowers the perplexity."""
    x: Floats = features.astype(np.float64)
    n = len(x)
    wide = affinities(_squared_distances(x), min(perplexity, (n - 1) / 3.0))
    p: Floats = wide.astype(np.float32)  # the picture is the same, in half the time
    y: Floats = (_principal(x) * 1e-4 + np.random.default_rng(seed).normal(0.0, 1e-6, (n, 2))).astype(np.float32)
    step, gains, rate = np.zeros_like(y), np.ones_like(y), max(n / EXAGGERATION / 4.0, 50.0)
    for iteration in range(ITERATIONS):
        early = iteration < EXAGGERATED_FOR
        gradient = _gradient(p * EXAGGERATION if early else p, y)
        gains = np.maximum(np.where((gradient > 0) != (step > 0), gains + 0.2, gains * 0.8), 0.01)
        step = (0.5 if early else 0.8) * step - rate * gains * gradient
        y = y + step
        y -= y.mean(axis=0)
    return y


def affinities(squared: Floats, perplexity: float) -> Floats:
    """Return the joint affinities (N, N), summing to 1, of squared distances (N, N) (eq. 1 and section 2).

    The width of each point's Gaussian is found by bisection, so that its neighbours have the given perplexity.
    """
    n = len(squared)
    wanted = np.log(perplexity)
    low, high, beta = np.zeros(n), np.full(n, np.inf), 1.0 / np.maximum(squared.mean(axis=1), TINY)
    for _ in range(60):
        chance = _conditional(squared, beta)
        entropy = -np.sum(chance * np.log(np.maximum(chance, TINY)), axis=1)
        wide = entropy > wanted
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
        beta = np.where(np.isinf(high), beta * 2.0, (low + high) / 2.0)
    chance = _conditional(squared, beta)
    return np.asarray((chance + chance.T) / (2.0 * n))


def _conditional(squared: Floats, beta: Floats) -> Floats:
    exponents = -beta[:, None] * squared
    np.fill_diagonal(exponents, -np.inf)
    weights = np.exp(exponents - exponents.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _gradient(p: Floats, y: Floats) -> Floats:
    """Return the gradient (N, 2) of the Kullback-Leibler divergence (eq. 5)."""
    kernel = 1.0 / (1.0 + _squared_distances(y))
    np.fill_diagonal(kernel, 0.0)
    force = (p - kernel / kernel.sum()) * kernel
    return np.asarray(4.0 * (force.sum(axis=1)[:, None] * y - force @ y))


def _squared_distances(x: Floats) -> Floats:
    norms = np.sum(x**2, axis=1)
    return np.asarray(np.maximum(norms[:, None] + norms[None] - 2.0 * (x @ x.T), 0.0))


def _principal(x: Floats) -> Floats:
    """Return the first two principal components (N, 2), each of unit deviation: a start without luck."""
    centred = x - x.mean(axis=0)
    vectors = np.linalg.svd(centred, full_matrices=False)[0][:, :2]
    flat = np.zeros((len(x), 2))
    flat[:, : vectors.shape[1]] = vectors / np.maximum(vectors.std(axis=0), TINY)
    return flat
