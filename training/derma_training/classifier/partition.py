"""How good a classifier trained on a partition is at the few classes that one asks about (Esteva et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from derma_common.errors import ConfigError
from derma_common.taxonomy import TrainingClass, Tree, infer


@dataclass(frozen=True)
class Fold:
    """One fold's held-out pictures: probabilities (N, K) of the training classes, and the true node of each picture."""

    posterior: npt.ArrayLike
    truth: Sequence[str]


@dataclass(frozen=True)
class FoldedAccuracy:
    """Accuracy of each fold, their mean and their sample standard deviation (0 for one fold)."""

    folds: tuple[float, ...]
    mean: float
    sd: float


def validate(
    folds: Sequence[Fold], tree: Tree, classes: Sequence[TrainingClass], nodes: Sequence[str]
) -> FoldedAccuracy:
    """Return the accuracy at the inference classes `nodes`, such as `tree.level(1)` (three-way) or `level(2)` (nine).

    A fold's accuracy is the mean over the inference classes that occur in it of the share of their pictures found.
    Raises ConfigError for no fold, a true node outside the tree or below none of `nodes`, and as `infer`.
    """
    if not folds:
        raise ConfigError("validation needs at least one fold")
    accuracies = []
    for fold in folds:
        found = infer(fold.posterior, tree, classes, nodes).argmax(axis=1)
        truth = np.asarray([_inference_class(tree, nodes, node) for node in fold.truth])
        accuracies.append(float(np.mean([(found[truth == c] == c).mean() for c in np.unique(truth)])))
    spread = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
    return FoldedAccuracy(tuple(accuracies), float(np.mean(accuracies)), spread)


def _inference_class(tree: Tree, nodes: Sequence[str], node: str) -> int:
    if node not in tree.nodes:
        raise ConfigError(f"the tree has no node {node!r}")
    line = tree.lineage(node)
    above = [i for i, candidate in enumerate(nodes) if candidate in line]
    if len(above) != 1:
        raise ConfigError(f"{node!r} is below {len(above)} of the inference classes {', '.join(nodes)}, not below one")
    return above[0]
