"""What a classifier's output means: crops, run, temperature, calibrated probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from derma_common.errors import ModelError
from derma_common.inference.card import ModelCard
from derma_common.inference.choice import CPU, RunnerChoice
from derma_common.inference.opening import open_runner
from derma_common.inference.runner import Array, PictureRunner, Runner
from derma_common.inference.unknown import UnknownCheck
from derma_common.preprocess import Image, cut, resize, softmax, to_tensor

Probabilities = npt.NDArray[np.float32]  # (N, C), rows sum to 1


class Classifier:
    """An opened classifier model."""

    def __init__(self, card: ModelCard, runner: Runner, unknown: UnknownCheck | None = None) -> None:
        """unknown: the card's rule, opened; without it the network's answer stays as it is."""
        self.card, self.runner, self._unknown = card, runner, unknown
        self._prepares = runner if isinstance(runner, PictureRunner) else None

    @classmethod
    def open(cls, directory: Path, threads: int = 1, choice: RunnerChoice = CPU) -> Self:
        """Open the classifier in `directory`. Raises ModelError, or ResourceError when the choice cannot run here."""
        card, runner = open_runner(directory, "classifier", threads, choice)
        try:
            return cls(card, runner, UnknownCheck.open(card, directory))
        except ModelError:
            runner.close()
            raise

    def classify(self, crops: Sequence[Image]) -> Probabilities:
        """Return calibrated probabilities (N, C) of crops, each (h, w, 3) uint8 BGR, square."""
        spec = self.card.input
        parts = []
        for start in range(0, len(crops), spec.max_batch):
            batch = [resize(crop, spec.width) for crop in crops[start : start + spec.max_batch]]
            outputs = self.runner.infer({spec.name: to_tensor(batch, spec.mean, spec.std)})
            parts.append(self._probabilities(outputs, len(batch)))
        return self._together(parts)

    def classify_squares(self, image: Image, squares: Sequence[Sequence[int]]) -> Probabilities:
        """Return calibrated probabilities (N, C) of squares (x1, y1, x2, y2) px of image (H, W, 3) uint8 BGR."""
        if self._prepares is None:
            return self.classify([cut(image, square, self.card.input.width) for square in squares])
        most = self.card.input.max_batch
        parts = []
        for start in range(0, len(squares), most):
            batch = squares[start : start + most]
            parts.append(self._probabilities(self._prepares.infer_squares(image, batch), len(batch)))
        return self._together(parts)

    def _probabilities(self, outputs: Mapping[str, Array], count: int) -> Probabilities:
        logits = outputs["logits"]
        if logits.shape != (count, len(self.card.classes)):
            raise ModelError(
                f"{self.card.name}: the network gives logits {logits.shape} for {count} crops, "
                f"its card has {len(self.card.classes)} classes"
            )
        if not np.isfinite(logits).all():
            # no error of the user's: the process dies, and a crop that does it three times is quarantined
            raise FloatingPointError(f"{self.card.name}: the network gives logits that are not finite")
        probabilities = softmax(logits, self.card.temperature)
        if self._unknown is None:
            return probabilities
        return self._unknown.told(probabilities, logits, outputs.get("features")).astype(np.float32)

    def _together(self, parts: Sequence[Probabilities]) -> Probabilities:
        return np.concatenate(parts) if parts else np.empty((0, len(self.card.classes)), dtype=np.float32)

    def close(self) -> None:
        """Free the network."""
        self.runner.close()
