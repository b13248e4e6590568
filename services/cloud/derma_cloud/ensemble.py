"""Several classifiers as one: the mean over views and members, as if every class were equally frequent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from derma_common.errors import ModelError
from derma_common.inference.choice import CPU, RunnerChoice
from derma_common.inference.classification import Classifier
from derma_common.posterior import Array, dihedral_views, mean, rescale_priors
from derma_common.preprocess import Image


class Ensemble:
    """Opened classifiers that know the same classes."""

    def __init__(self, members: Sequence[Classifier]) -> None:
        """Raises ModelError when there is no member, or one that knows other classes than the first."""
        if not members:
            raise ModelError("a second opinion needs at least one model")
        self._members = members
        self.classes = members[0].card.classes
        for member in members[1:]:
            if set(member.card.classes) != set(self.classes):
                raise ModelError(
                    f"{member.card.name} knows the classes {', '.join(member.card.classes)}, "
                    f"{members[0].card.name} {', '.join(self.classes)}: members of one ensemble must share them"
                )
        # all or none: a mean of statements about two different worlds is one about neither
        self._rescaled = all(member.card.class_counts for member in members)

    @classmethod
    def open(cls, directories: Sequence[Path], threads: int, choice: RunnerChoice = CPU) -> Self:
        """Open the classifiers in these folders. Raises ModelError; ResourceError when the choice cannot run here."""
        return cls([Classifier.open(directory, threads, choice) for directory in directories])

    @property
    def models(self) -> tuple[str, ...]:
        """The members, as findings name them."""
        return tuple(member.card.id for member in self._members)

    @property
    def method(self) -> str:
        """How the members' outputs become one, in words."""
        parts = ["calibrated probabilities, mean over 8 rotations and reflections"]
        if self._rescaled:
            parts.append("each model rescaled as if its classes had been equally frequent in training")
        else:
            parts.append("no prior rescaling, because not every model states its class counts")
        if len(self._members) > 1:
            parts.append(f"mean of {len(self._members)} models")
        return "; ".join(parts)

    def probabilities(self, image: Image) -> Array:
        """Return the ensemble's probabilities (C,) of image (h, w, 3) uint8 BGR, in the order of `classes`."""
        views = dihedral_views(image)
        return np.asarray(mean([self._of(member, views) for member in self._members])[0])

    def _of(self, member: Classifier, views: list[Image]) -> Array:
        """Return a member's probabilities (1, C) in the order of the ensemble's classes."""
        card = member.card
        row = np.asarray(member.classify(views), dtype=np.float64).mean(axis=0, keepdims=True)
        if self._rescaled:
            row = rescale_priors(row, [card.class_counts[name] for name in card.classes])
        return np.asarray(row[:, [card.classes.index(name) for name in self.classes]])

    def close(self) -> None:
        """Free the networks."""
        for member in self._members:
            member.close()
