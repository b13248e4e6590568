"""The runner contract: open a network file, run named arrays through it, close it.

A runner knows nothing of boxes or classes; what an output means is the decoder's business
(`detection`, `classification`). Every runner passes the same contract suite.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from derma_common.errors import ModelError
from derma_common.inference.card import ModelCard, read_card, verified_file

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


def open_runner(directory: Path, kind: str, threads: int) -> tuple[ModelCard, Runner]:
    """Open the model in `directory` after checking that it is a `kind` and that its file is the card's.

    `threads` bounds the CPU threads of one inference. Raises ModelError.
    """
    card = read_card(directory)
    if card.kind != kind:
        raise ModelError(f"{directory} is a {card.kind}, a {kind} is needed here")
    path = verified_file(card, directory)
    if card.runner == "onnx":
        from derma_common.inference.onnx import OnnxRunner

        return card, OnnxRunner(card, path, threads)
    if card.runner == "fake":
        from derma_common.inference.fake import FakeRunner

        return card, FakeRunner(card, path)
    raise ModelError(f"{directory}: no runner is called {card.runner!r} (there are: onnx, fake)")


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
