"""The networks that are measured: exported ones through the service's runner, checkpoints through torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from derma_common.errors import ModelError
from derma_common.inference.card import CARD_FILE
from derma_common.inference.opening import open_runner
from derma_common.inference.unknown import UnknownCheck
from derma_common.preprocess import CROP_MARGIN, Image, softmax, to_tensor
from derma_common.shipped import model_dir

Array = npt.NDArray[np.float32]

CHECKPOINT_FILE = "checkpoint.pt"  # as in classifier.checkpoint, which needs torch


@dataclass(frozen=True)
class Answers:
    """What a network says of N crops: logits (N, C), and its last features (N, D) if it gives them."""

    logits: Array
    features: Array | None


@dataclass(frozen=True)
class Network:
    """An opened classifier network, and what its card or recipe says of it.

    run: tensor (N, 3, size_px, size_px) float32 -> named outputs, N ≤ batch. class_counts: how often
    each class was when it learnt, empty when not known.
    """

    id: str
    classes: tuple[str, ...]
    size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    batch: int
    run: Callable[[Array], Mapping[str, Array]]
    close: Callable[[], None]
    temperature: float = 1.0
    crop_margin: float = CROP_MARGIN
    class_counts: Mapping[str, int] = field(default_factory=dict)
    unknown: UnknownCheck | None = None  # the rule of a card, applied as the service does
    module: Any = None  # the torch module of a checkpoint, for gradients; exported networks have none

    def answer(self, crops: Sequence[Image]) -> Answers:
        """Run any number of crops, each (size_px, size_px, 3) uint8 BGR. Raises ModelError."""
        parts = [self._batch(crops[start : start + self.batch]) for start in range(0, len(crops), self.batch)]
        logits = np.concatenate([part["logits"] for part in parts])
        if logits.shape != (len(crops), len(self.classes)):
            raise ModelError(
                f"{self.id} gives logits {logits.shape} for {len(crops)} crops of {len(self.classes)} classes"
            )
        if not np.isfinite(logits).all():
            raise ModelError(f"{self.id} gives logits that are not finite")
        features = np.concatenate([part["features"] for part in parts]) if "features" in parts[0] else None
        return Answers(logits, features)

    def probabilities(self, crops: Sequence[Image]) -> npt.NDArray[np.float64]:
        """Return calibrated probabilities (N, C) of crops, as `answer`."""
        return self.posterior(self.answer(crops))

    def posterior(self, answers: Answers) -> npt.NDArray[np.float64]:
        """Return the calibrated probabilities (N, C) that the service would tell of these answers."""
        probabilities = softmax(answers.logits, self.temperature).astype(np.float64)
        return self.unknown.told(probabilities, answers.logits, answers.features) if self.unknown else probabilities

    def _batch(self, crops: Sequence[Image]) -> Mapping[str, Array]:
        return self.run(to_tensor(crops, self.mean, self.std))


def open_network(name: str, threads: int) -> Network:
    """Open an exported model, by name or folder, or a training's folder with its checkpoint. Raises ModelError."""
    folder = Path(name).expanduser()
    if (folder / CHECKPOINT_FILE).is_file() and not (folder / CARD_FILE).is_file():
        from derma_training.classifier.evaluation.checkpoints import open_checkpoint

        return open_checkpoint(folder, threads)
    return open_exported(model_dir(name), threads)


def open_exported(folder: Path, threads: int) -> Network:
    """Open the model in `folder` with the runner that its card names. Raises ModelError."""
    card, runner = open_runner(folder, "classifier", threads)
    spec = card.input
    return Network(
        id=card.id,
        classes=card.classes,
        size_px=spec.width,
        mean=spec.mean,
        std=spec.std,
        batch=spec.max_batch,
        run=lambda tensor: runner.infer({spec.name: tensor}),
        close=runner.close,
        temperature=card.temperature,
        crop_margin=card.crop_margin,
        class_counts=card.class_counts,
        unknown=UnknownCheck.open(card, folder),
    )
