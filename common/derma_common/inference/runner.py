"""The runner contract: open a network file, run named arrays through it, close it.

A runner knows nothing of boxes or classes; what an output means is the decoder's business
(`detection`, `classification`). Every runner passes the same contract suite.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from derma_common.inference.card import ModelCard
from derma_common.preprocess import Image

Array = npt.NDArray[np.float32]


class Runner(Protocol):
    """An opened network. `name` says what runs it, such as "onnx" or "tensorrt-rtx 1.7.1 fp16"."""

    name: str

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the network: named float32 arrays in, all named outputs out. Raises ValueError for a wrong shape."""
        ...

    def close(self) -> None:
        """Free the network; a second call does nothing."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@runtime_checkable
class PictureRunner(Runner, Protocol):
    """A runner that resizes and normalises pictures where it runs, so that only their uint8 pixels travel there.

    Its pixels are those of `derma_common.preprocess`, within one level.
    """

    def infer_letterboxed(self, image: Image) -> dict[str, Array]:
        """Fit image (H, W, 3) uint8 BGR into the input as `preprocess.letterbox` does, and run the network."""
        ...

    def infer_squares(self, image: Image, squares: Sequence[Sequence[int]]) -> dict[str, Array]:
        """Cut squares (x1, y1, x2, y2) px out of image (H, W, 3) uint8 BGR as `preprocess.cut` does, and run.

        Raises ValueError when there are more than the card's max_batch, or one lies outside the picture.
        """
        ...

    def pin(self, memory: mmap.mmap) -> Callable[[], None]:
        """Let pictures in `memory` travel without a copy on the way; returns what ends that, before it is unmapped."""
        ...


def pin_of(runner: Runner) -> Callable[[mmap.mmap], Callable[[], None]] | None:
    """Return what lets the runner read pictures in mapped memory in place; None when it has no use for that."""
    return runner.pin if isinstance(runner, PictureRunner) else None


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
