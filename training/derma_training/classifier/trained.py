"""The outcome of a run: its network as it is measured and exported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derma_common.errors import ModelError
from derma_training.classifier.architectures import Planes
from derma_training.classifier.checkpoint import BEST_FILE, CHECKPOINT_FILE, read_checkpoint
from derma_training.classifier.setup import Setup, setup_from


@dataclass(frozen=True)
class Trained:
    """A run's network as it is measured and exported, and how it came about. `model`: images -> logits."""

    model: Any
    setup: Setup
    epochs: int
    steps: int
    elapsed_s: float

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of the logits."""
        return self.setup.classes

    @property
    def size(self) -> int:
        """The px of the square input."""
        return self.setup.size

    @property
    def mean(self) -> Planes:
        """What is subtracted from RGB in 0 … 1."""
        return self.setup.mean

    @property
    def std(self) -> Planes:
        """What RGB is then divided by."""
        return self.setup.std


def load_trained(directory: Path) -> Trained:
    """Return the network of the run in `directory`: the best epoch's with early stopping, else the last.

    Raises ModelError.
    """
    best = directory / BEST_FILE
    state = read_checkpoint(best if best.exists() else directory / CHECKPOINT_FILE)
    setup = setup_from(state["setup"])
    network = setup.network(setup.folded)
    try:
        network.load_state_dict(state.get("average", state.get("network")))
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"{directory} holds another network than it says: {str(error).splitlines()[0]}") from error
    counters = state["counters"]
    return Trained(network.eval(), setup, counters["epoch"], counters["step"], counters["elapsed_s"])
