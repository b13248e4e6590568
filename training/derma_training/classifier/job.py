"""What a training run works with and does not change: its setup, its budget, its pictures, its loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derma_training.classifier.batches import Maker
from derma_training.classifier.manifest import Row
from derma_training.classifier.run import Run
from derma_training.classifier.setup import Setup

Clock = Callable[[], float]
Criterion = Callable[[Any, Any, Any], Any]  # logits (N, C), labels (N,), images (N, 3, S, S) -> loss


@dataclass(frozen=True)
class Budget:
    """How long to train: `minutes` of wall-clock time if positive, else `epochs`."""

    epochs: int
    minutes: float = 0.0


@dataclass(frozen=True)
class Job:
    """Everything a run works with and does not change."""

    setup: Setup
    budget: Budget
    out: Path
    rows: tuple[Row, ...]
    calibration: tuple[Row, ...]
    maker: Maker
    epoch_length: int
    criterion: Criterion
    device: str
    threads: int
    clock: Clock

    @property
    def labels(self) -> list[str]:
        """The labels of the training pictures."""
        return [row.label for row in self.rows]

    @property
    def batch(self) -> int:
        """Pictures in a batch."""
        return min(self.setup.recipe.batch, self.epoch_length)

    @property
    def steps_per_epoch(self) -> int:
        """The batches of one epoch; a smaller last one is left out."""
        return self.epoch_length // self.batch

    def progress(self, step: int, elapsed_s: float) -> float:
        """Return how far a run is, 0 … 1, after so many steps and so much time."""
        if self.budget.minutes > 0.0:
            return elapsed_s / (60.0 * self.budget.minutes)
        return step / (self.budget.epochs * self.steps_per_epoch)

    def finished(self, run: Run) -> bool:
        """Tell whether the budget is spent, or nothing has become better for `patience` epochs."""
        stalled = 0 < self.setup.patience <= run.stale_epochs
        return stalled or self.progress(run.step, run.elapsed_s) >= 1.0
