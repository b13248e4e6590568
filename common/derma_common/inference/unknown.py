"""When a crop is told as unknown although the network gave it a class: a score below the card's threshold.

The score says how much a crop is like the lesions that the network learned from (`derma_common.posterior_abstention`
has the definitions). Most of the probability then moves to the card's class for unknown pictures, so that it is the
answer; what the network said can still be read from the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from derma_common.errors import ModelError
from derma_common.inference.card import ModelCard, UnknownRule, checked_file
from derma_common.posterior_abstention import max_softmax, nearest_neighbour_score, negative_energy

Floats = npt.NDArray[np.float64]

MOVED = 0.75  # of the probability: more than half, so that the unknown class is the answer whatever the others have


class UnknownCheck:
    """A card's rule, ready for use."""

    def __init__(self, rule: UnknownRule, classes: tuple[str, ...], known: npt.NDArray[np.float16] | None) -> None:
        """known: features (M, D) of lesions that the network learned from, for the score `knn`."""
        self._rule, self._known = rule, known
        self._unknown = classes.index(rule.told_as)

    @classmethod
    def open(cls, card: ModelCard, directory: Path) -> Self | None:
        """Return the check of the card in `directory`, None when it has no rule. Raises ModelError."""
        if card.unknown is None:
            return None
        known = read_known(card.unknown, card, directory) if card.unknown.score == "knn" else None
        return cls(card.unknown, card.classes, known)

    def told(self, probabilities: npt.ArrayLike, logits: npt.ArrayLike, features: npt.ArrayLike | None) -> Floats:
        """Return probabilities (N, C) with the rule applied; logits (N, C) and features (N, D) of the same crops."""
        rows = np.array(probabilities, dtype=np.float64)
        strange = self.score(rows, logits, features) < self._rule.threshold
        rows[strange] *= 1.0 - MOVED
        rows[strange, self._unknown] += MOVED
        return rows

    def score(self, probabilities: npt.ArrayLike, logits: npt.ArrayLike, features: npt.ArrayLike | None) -> Floats:
        """Return how much each crop (N,) is like the known lesions.

        The class for unknown pictures is left out of the scores of the classes: a network that learned it is as sure of
        it as of any other.
        """
        of_classes = np.asarray(probabilities, dtype=np.float64)
        if self._rule.score == "p_unk":
            return np.asarray(1.0 - of_classes[:, self._unknown])
        if self._rule.score == "max_softmax":
            return max_softmax(np.delete(of_classes, self._unknown, axis=1))
        if self._rule.score == "energy":
            return negative_energy(np.delete(np.asarray(logits, dtype=np.float64), self._unknown, axis=1))
        assert features is not None and self._known is not None  # as the card was checked
        return nearest_neighbour_score(features, self._known, self._rule.neighbours)


def read_known(rule: UnknownRule, card: ModelCard, directory: Path) -> npt.NDArray[np.float16]:
    """Return the features (M, D) float16 that a rule compares with. Raises ModelError: changed, damaged, too few."""
    path = checked_file(card.name, directory / rule.file, rule.sha256)
    try:
        known = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{card.name}: {path} cannot be read as an array: {error}") from error
    if known.ndim != 2 or known.dtype != np.float16 or len(known) < rule.neighbours:
        raise ModelError(
            f"{card.name}: {path} holds {known.dtype} {known.shape}, not float16 features of {rule.neighbours} or more"
        )
    return np.asarray(known, dtype=np.float16)
