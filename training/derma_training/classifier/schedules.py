"""Learning rate and momentum as functions of how far a run is. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from derma_training.classifier.recipes import Stage

START_DIVISOR = 25.0  # fastai 1: one cycle begins at a 25th of the peak …
END_DIVISOR = 25e4  # … and ends at this part of it
MOMENTA = (0.95, 0.85)
DECAY_FACTOR, DECAY_EPOCHS = 16.0, 30  # Esteva et al. 2017
SIZE_STEP_PX = 32


def cosine(start: float, end: float, share: float) -> float:
    """Return the value `share` of the way from start to end along half a cosine."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))


def one_cycle(progress: float, warmup_share: float) -> float:
    """Return one cycle's rate as a part of its peak, at progress 0 … 1 (Smith 2018; both phases cosine, as fastai)."""
    if progress < warmup_share:
        return cosine(1.0 / START_DIVISOR, 1.0, progress / warmup_share)
    fall = min(1.0, (progress - warmup_share) / (1.0 - warmup_share))
    return cosine(1.0, 1.0 / END_DIVISOR, fall)


def momentum(progress: float, warmup_share: float) -> float:
    """Return the momentum that goes with one cycle: high where the rate is low."""
    if progress < warmup_share:
        return cosine(*MOMENTA, progress / warmup_share)
    return cosine(*MOMENTA[::-1], min(1.0, (progress - warmup_share) / (1.0 - warmup_share)))


def stepwise(epoch: int) -> float:
    """Return the rate as a part of the first: divided by 16 every 30 epochs; epochs count from 0."""
    return float(DECAY_FACTOR ** -(epoch // DECAY_EPOCHS))


def stage_at(stages: Sequence[Stage], progress: float) -> tuple[Stage, float]:
    """Return the stage a run is in at progress 0 … 1, and the progress within it."""
    total = sum(stage.share for stage in stages)
    start = 0.0
    for stage in stages[:-1]:
        share = stage.share / total
        if progress < start + share:
            return stage, (progress - start) / share
        start += share
    return stages[-1], min(1.0, (progress - start) / (1.0 - start))


def layer_rates(stage: Stage, groups: int) -> list[float]:
    """Return the peak rate of each layer group, first layers first: a geometric series from body to head.

    In a frozen body only the norms learn, at the head's rate.
    """
    if stage.body_lr == 0.0:
        return [stage.head_lr] * groups
    ratio = (stage.head_lr / stage.body_lr) ** (1.0 / max(groups - 1, 1))
    return [stage.body_lr * ratio**i for i in range(groups)]


def size_at(progress: float, size: int, early_share: float, early_scale: float) -> int:
    """Return the px of the training pictures: smaller, in steps of 32, while progress is below `early_share`."""
    if progress >= early_share or size < 2 * SIZE_STEP_PX:
        return size
    return max(SIZE_STEP_PX, round(size * early_scale / SIZE_STEP_PX) * SIZE_STEP_PX)
