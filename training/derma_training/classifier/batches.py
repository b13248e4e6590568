"""Batches of training pictures, read and augmented by threads while the network works.

Every picture has its own random numbers, from seed, epoch and position: what a batch holds depends on neither the
threads nor on where a killed run was taken up again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from derma_common.preprocess import to_tensor
from derma_training.classifier.architectures import Planes
from derma_training.classifier.augment.pipelines import Augmentation
from derma_training.classifier.manifest import Row
from derma_training.classifier.pictures import read_picture

AHEAD = 3  # batches read in advance for each thread


@dataclass(frozen=True)
class Batch:
    """images (N, 3, S, S) float32, labels (N,) int64, and the rows they come from."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Maker:
    """How rows become batches."""

    augmentation: Augmentation
    classes: tuple[str, ...]
    mean: Planes
    std: Planes
    seed: int

    def make(self, rows: Sequence[Row], size: int, epoch: int, position: int) -> Batch:
        """Read and augment rows; `position` is that of the first within the epoch. Raises ConfigError."""
        crops = []
        for i, row in enumerate(rows):
            rng = np.random.default_rng((self.seed, epoch, position + i))
            crops.append(self.augmentation(read_picture(row.file), row.box, size, rng))
        labels = np.asarray([self.classes.index(row.label) for row in rows], dtype=np.int64)
        return Batch(to_tensor(crops, self.mean, self.std), labels, tuple(rows))


def batches(
    maker: Maker, rows: Sequence[Row], starts: Sequence[int], length: int, size: Callable[[int], int], epoch: int,
    threads: int,
) -> Generator[Batch, None, None]:  # fmt: skip
    """Yield the batches rows[start : start + length] for every start, in order, made by threads.

    size: px of the picture for the k-th of them, asked when it is put in hand.
    """
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for k, start in enumerate(starts):
                chosen = rows[start : start + length]
                waiting.append(pool.submit(maker.make, chosen, size(k), epoch, start))
                if len(waiting) >= AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
