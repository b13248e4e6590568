"""Learn from labels and from another classifier at once.

Hinton et al. 2015 (arXiv 1503.02531): the cross-entropy to the labels and, softened by a temperature T, to the
teacher's probabilities, the second times T². The teacher sees the very batch that the student sees (Beyer et al.
2022, arXiv 2106.05237), so no crop of the student's is judged by what another crop shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch.nn import functional

from derma_common.errors import ModelError
from derma_common.inference.card import ModelCard
from derma_common.inference.opening import open_runner
from derma_common.inference.runner import Runner


def distillation_loss(
    logits: Any, labels: Any, teacher: Any, *, share: float = 0.5, temperature: float = 2.0, smoothing: float = 0.05
) -> Any:
    """Return (1 − share) · CE(labels) + share · T² · KL(teacher ‖ student) of logits (N, C) and labels (N,)."""
    hard = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    soft = functional.kl_div(
        functional.log_softmax(logits / temperature, dim=1),
        functional.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return (1.0 - share) * hard + share * temperature**2 * soft


@dataclass
class Distillation:
    """A loss for training: an exported classifier looks at each batch too. `mean`, `std`: of the student's input."""

    card: ModelCard
    runner: Runner
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    share: float = 0.5
    temperature: float = 2.0
    smoothing: float = 0.05

    @classmethod
    def open(
        cls,
        directory: Path,
        classes: tuple[str, ...],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        threads: int = 1,
    ) -> Self:
        """Open the teacher in `directory`. Raises ModelError when it knows other classes than `classes`."""
        card, runner = open_runner(directory, "classifier", threads)
        if card.classes != classes:
            runner.close()
            raise ModelError(
                f"the teacher {card.name} knows {', '.join(card.classes)}, but the data has {', '.join(classes)}"
            )
        return cls(card, runner, mean, std)

    def __call__(self, logits: Any, labels: Any, images: Any) -> Any:
        """Return the loss of a batch: logits (N, C), labels (N,), images (N, 3, H, W) as the student sees them."""
        return distillation_loss(
            logits,
            labels,
            self.teach(images).to(logits.device),
            share=self.share,
            temperature=self.temperature,
            smoothing=self.smoothing,
        )

    def teach(self, images: Any) -> Any:
        """Return the teacher's calibrated logits (N, C), on the CPU, for images (N, 3, H, W) of any size."""
        spec, images = self.card.input, images.float().cpu()
        # derma's one exception from "no second resize": these pixels exist only as the student's augmented batch
        if tuple(images.shape[2:]) != (spec.height, spec.width):
            images = functional.interpolate(images, (spec.height, spec.width), mode="bilinear", antialias=True)
        pixels = (images * _planes(self.std) + _planes(self.mean) - _planes(spec.mean)) / _planes(spec.std)
        batch = np.ascontiguousarray(pixels.numpy())
        parts = [
            self.runner.infer({spec.name: batch[start : start + spec.max_batch]})["logits"]
            for start in range(0, len(batch), spec.max_batch)
        ]
        return torch.from_numpy(np.concatenate(parts)) / self.card.temperature

    def close(self) -> None:
        """Free the teacher."""
        self.runner.close()


def _planes(values: tuple[float, float, float]) -> Any:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1)
