"""Folds that cannot leak: what is connected stays together, and each class is spread as evenly as that allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np


def connected(n: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Return for each of n pictures the smallest index of its connected component (union-find)."""
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    return [root(i) for i in range(n)]


def grouped_folds(
    labels: Sequence[str], groups: Sequence[str], shares: Mapping[str, float], seed: int = 0
) -> list[str]:
    """Return a fold, one of the names in `shares`, for each picture; all pictures of a group get the same.

    A fold whose share is 0 gets none.

    Groups that hold most of some class are dealt first, at random among equals; each goes where it least increases
    Σ (n − m)² / m over folds and classes, n being the pictures there and m = share × pictures of the class.
    """
    names = [name for name, share in shares.items() if share > 0.0]
    weights = np.asarray([shares[name] for name in names])
    class_of = {label: i for i, label in enumerate(sorted(set(labels)))}
    counts: dict[str, np.ndarray] = {}
    for label, group in zip(labels, groups, strict=True):
        counts.setdefault(group, np.zeros(len(class_of)))[class_of[label]] += 1
    totals = np.sum(list(counts.values()), axis=0)
    wanted = np.outer(weights / weights.sum(), totals)
    have = np.zeros_like(wanted)
    rng = np.random.default_rng(seed)
    order = sorted(counts)
    rng.shuffle(order)
    fold_of = {}
    for group in sorted(order, key=lambda g: -float((counts[g] / totals).sum())):
        n = counts[group]
        cost = (n * (2.0 * (have - wanted) + n) / wanted).sum(axis=1)
        best = int(cost.argmin())
        have[best] += n
        fold_of[group] = names[best]
    return [fold_of[group] for group in groups]
