"""What a classifier's output means: crops, run, temperature, calibrated probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from derma_common.errors import ModelError
from derma_common.inference.card import ModelCard
from derma_common.inference.opening import open_runner
from derma_common.inference.runner import Runner
from derma_common.preprocess import Image, resize, softmax, to_tensor

Probabilities = npt.NDArray[np.float32]  # (N, C), rows sum to 1


class Classifier:
    """An opened classifier model."""

    def __init__(self, card: ModelCard, runner: Runner) -> None:
        self.card = card
        self._runner = runner

    @classmethod
    def open(cls, directory: Path, threads: int = 1) -> Self:
        """Open the classifier in `directory`. Raises ModelError."""
        return cls(*open_runner(directory, "classifier", threads))

    def classify(self, crops: Sequence[Image]) -> Probabilities:
        """Return calibrated probabilities (N, C) of crops, each (h, w, 3) uint8 BGR, square."""
        spec = self.card.input
        parts = []
        for start in range(0, len(crops), spec.max_batch):
            batch = [resize(crop, spec.width) for crop in crops[start : start + spec.max_batch]]
            outputs = self._runner.infer({spec.name: to_tensor(batch, spec.mean, spec.std)})
            logits = outputs["logits"]
            if logits.shape != (len(batch), len(self.card.classes)):
                raise ModelError(
                    f"{self.card.name}: the network gives logits {logits.shape} for {len(batch)} crops, "
                    f"its card has {len(self.card.classes)} classes"
                )
            if not np.isfinite(logits).all():
                # no error of the user's: the process dies, and a crop that does it three times is quarantined
                raise FloatingPointError(f"{self.card.name}: the network gives logits that are not finite")
            parts.append(softmax(logits, self.card.temperature))
        return np.concatenate(parts) if parts else np.empty((0, len(self.card.classes)), dtype=np.float32)

    def close(self) -> None:
        """Free the network."""
        self._runner.close()
