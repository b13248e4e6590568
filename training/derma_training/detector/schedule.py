"""What changes while a detector trains: the learning rate and the size of its pictures.

Both follow `progress`, the share of the budget that is spent: epochs or minutes, so that the rate always comes
down to its end.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Shape = Literal["cosine", "steps"]
BURN_IN_SHARE = 0.05
FINAL_SHARE = 0.2  # the last part of a run sees the final size alone, so that its batch statistics are that size's


def rate_at(progress: float, step: int, peak: float, burn_in: int, shape: Shape = "cosine") -> float:
    """Return the learning rate at `progress` in [0, 1] and optimizer step `step`.

    Burn-in multiplies by (step / burn_in)^4, as Darknet does, and ends with BURN_IN_SHARE at the latest. "cosine": half
    a cosine down to 1 % of the peak (Loshchilov and Hutter 2017, eq. 5). "steps": a tenth from 80 % on and a hundredth
    from 90 %, Darknet's rule for own classes.
    """
    rise = min(1.0, max((step + 1) / max(1, burn_in), progress / BURN_IN_SHARE)) ** 4
    if shape == "steps":
        fall = 1.0 if progress < 0.8 else 0.1 if progress < 0.9 else 0.01
    else:
        fall = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return peak * rise * fall


def size_at(progress: float, rng: np.random.Generator, final_px: int, stride_px: int = 32) -> int:
    """Return a picture side for the next steps: multi-scale, small at first, the final side last.

    Darknet (random=1) draws it from the final side / 1.4 to × 1.4. Here the middle of that range rises from 0.6 to
    1 of the final side: most is learned on small pictures, at a third of the time for each.
    """
    if progress >= 1 - FINAL_SHARE:
        return final_px
    middle = final_px * (0.6 + 0.4 * progress / (1 - FINAL_SHARE))
    side = middle * 1.4 ** rng.uniform(-1, 1)
    return int(np.clip(round(side / stride_px), 3, round(1.4 * final_px / stride_px))) * stride_px


def batch_at(side_px: int, final_px: int, batch: int) -> int:
    """Return how many pictures of a side make a batch: `batch` at the final side, up to twice that on smaller ones."""
    return int(np.clip(round(batch * (final_px / side_px) ** 1.5), max(2, batch // 2), 2 * batch))
