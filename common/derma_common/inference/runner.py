"""The runner contract: open a network file, run named arrays through it, close it.

A runner knows nothing of boxes or classes; what an output means is the decoder's business
(`detection`, `classification`). Every runner passes the same contract suite.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from derma_common.inference.card import ModelCard

Array = npt.NDArray[np.float32]


class Runner(Protocol):
    """An opened network."""

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network: named float32 arrays in, all named outputs out. Raises ValueError for a wrong shape."""
        ...

    def close(self) -> None:
        """Free the network; a second call does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_input(card: ModelCard, inputs: Mapping[str, Array]) -> Array:
    """Return the one input array after checking its name, type and shape against the card."""
    if set(inputs) != {card.input.name}:
        raise ValueError(f"{card.name} takes one input {card.input.name!r}, got {sorted(inputs)}")
    array = inputs[card.input.name]
    wanted = (3, card.input.height, card.input.width)
    if array.dtype != np.float32 or array.ndim != 4 or array.shape[1:] != wanted:
        raise ValueError(f"{card.name} takes float32 (N, {wanted}), got {array.dtype} {array.shape}")
    if not 1 <= len(array) <= card.input.max_batch:
        raise ValueError(f"{card.name} takes 1 to {card.input.max_batch} pictures at once, got {len(array)}")
    return array
