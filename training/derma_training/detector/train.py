"""The training loop: a fixed wall-clock budget, so that the learning rate always comes down to its end.

Progress is elapsed time over budget; it drives the learning rate (burn-in, then half a cosine, Loshchilov
and Hutter 2017, eq. 5) and the picture sizes (small first, the final size last).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from derma_training.detector.data import Pools, batch, sample
from derma_training.detector.yolo_head import Anchors, fit_anchors
from derma_training.detector.yolo_loss import LossSettings, yolo_loss
from derma_training.detector.yolov4_tiny import ANCHORS_PER_HEAD, STRIDES, YoloV4Tiny

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"


@dataclass(frozen=True)
class TrainSettings:
    """How long and how to train."""

    minutes: float
    size: int = 416
    peak_rate: float = 1.5e-3
    weight_decay: float = 5e-3
    burn_in: int = 150  # steps; the rate grows with (step / burn_in)^2
    ema: float = 0.996
    epoch_images: int = 800
    seed: int = 0
    # Darknet's box weight of 0.07 belongs to its 2 M SGD steps; in a short AdamW run it leaves boxes loose
    loss: LossSettings = field(default_factory=lambda: LossSettings(iou_normalizer=1.0))


@dataclass
class Run:
    """What a checkpoint holds."""

    net: YoloV4Tiny
    averaged: YoloV4Tiny
    optimizer: torch.optim.Optimizer
    anchors: Anchors
    step: int = 0
    images: int = 0
    elapsed_s: float = 0.0


def choose_anchors(pools: Pools, size: int, seed: int, count: int = 1500) -> Anchors:
    """Fit anchors to the boxes that training will show at its final size, each head's to those of its own scale.

    One clustering of all would follow the many small boxes and leave a close-up's lesion none that is like it.
    """
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([sample(rng, pools, size).boxes for _ in range(count)]).astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    large = np.sqrt(sides.prod(axis=1)) > STRIDES[0]
    shapes = (fit_anchors(part, ANCHORS_PER_HEAD, seed) for part in (sides[large], sides[~large]))
    return [[(round(float(w), 1), round(float(h), 1)) for w, h in head] for head in shapes]


def start(anchors: Anchors, settings: TrainSettings) -> Run:
    """Return a run with fresh weights."""
    torch.manual_seed(settings.seed)
    net = YoloV4Tiny(1).to(memory_format=torch.channels_last)
    averaged = YoloV4Tiny(1).to(memory_format=torch.channels_last)
    averaged.load_state_dict(net.state_dict())
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return Run(net, averaged.eval(), torch.optim.AdamW(groups, lr=settings.peak_rate), anchors)


def train(run: Run, pools: Callable[[], Pools], settings: TrainSettings, work: Path) -> None:
    """Train until the budget is spent; after each epoch write a checkpoint and a line of JSON.

    `pools` is asked anew each epoch, so that scenes packed meanwhile are used.
    """
    while run.elapsed_s < settings.minutes * 60:
        line = train_one_epoch(run, pools(), settings)
        save(run, work)
        with (work / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def train_one_epoch(run: Run, pools: Pools, settings: TrainSettings) -> dict[str, Any]:
    """Show the network `epoch_images` pictures, or fewer if the budget ends; returns the epoch's figures."""
    rng = np.random.default_rng((settings.seed, run.step))
    began, before = time.monotonic(), run.elapsed_s
    sums = {"box": 0.0, "obj": 0.0, "cls": 0.0}
    shown, steps, rate, size = 0, 0, 0.0, settings.size
    run.net.train()
    while shown < settings.epoch_images and run.elapsed_s < settings.minutes * 60:
        progress = run.elapsed_s / (settings.minutes * 60)
        size, count = size_at(progress, rng, settings.size)
        rate = rate_at(progress, run.step, settings)
        parts = _step(run, batch(rng, pools, count, size), rate, settings)
        sums = {name: sums[name] + parts[name] for name in sums}
        shown, steps = shown + count, steps + 1
        run.elapsed_s = before + time.monotonic() - began
    run.images += shown
    figures = {name: round(value / max(1, steps), 4) for name, value in sums.items()}
    speed = round(shown / max(1e-6, run.elapsed_s - before), 2)
    pictures = sum(len(pool) for pool in pools.values())
    return {
        "minutes": round(run.elapsed_s / 60, 2), "step": run.step, "images": run.images, "rate": round(rate, 6),
        "size": size, "images_per_s": speed, "pool": pictures, **figures,
    }  # fmt: skip


def _step(run: Run, data: tuple[torch.Tensor, ...], rate: float, settings: TrainSettings) -> dict[str, float]:
    images, truths, ignored = data
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    raws = run.net(images.contiguous(memory_format=torch.channels_last))
    loss, parts = yolo_loss(raws, run.anchors, STRIDES, 1, truths, ignored, settings.loss)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(run.net.parameters(), 20.0)
    run.optimizer.step()
    run.step += 1
    _average(run, min(settings.ema, (1 + run.step) / (10 + run.step)))
    return parts


@torch.no_grad()  # type: ignore[untyped-decorator]
def _average(run: Run, keep: float) -> None:
    """Move the averaged weights (and batch statistics) towards the trained ones."""
    for mean, new in zip(run.averaged.state_dict().values(), run.net.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(new, 1 - keep)


def rate_at(progress: float, step: int, settings: TrainSettings) -> float:
    """Return the learning rate: burn-in by steps, then a cosine over the budget down to 1 % of the peak."""
    burn_in = min(1.0, ((step + 1) / settings.burn_in) ** 2)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return settings.peak_rate * burn_in * (0.01 + 0.99 * cosine)


def size_at(progress: float, rng: np.random.Generator, final: int) -> tuple[int, int]:
    """Return the picture side and the batch: multi-scale around 0.55, then 0.77, then 1.0 of the final side.

    Wide-field windows show lesions at the same scale whatever their side, so most is learned on small ones;
    a sixth of the steps has the final side throughout, for the close-ups.
    """
    middle = (7 if progress < 0.45 else 10 if progress < 0.8 else 13) * final / 13
    if rng.random() < 1 / 6:
        middle = final
    side = round(middle / 32 + rng.integers(-1, 2)) * 32
    return max(96, side), min(24, max(4, round(16 * (240 / side) ** 1.5)))


def save(run: Run, work: Path) -> None:
    """Write the checkpoint atomically."""
    state = {
        "net": run.net.state_dict(), "averaged": run.averaged.state_dict(), "optimizer": run.optimizer.state_dict(),
        "anchors": [[list(pair) for pair in head] for head in run.anchors],
        "step": run.step, "images": run.images, "elapsed_s": run.elapsed_s,
    }  # fmt: skip
    draft = work / (CHECKPOINT + ".part")
    torch.save(state, draft)
    draft.replace(work / CHECKPOINT)


def resume(work: Path, settings: TrainSettings) -> Run:
    """Return the run as its last checkpoint left it. Loads tensors and numbers only, no code."""
    state = torch.load(work / CHECKPOINT, map_location="cpu", weights_only=True)
    run = start([[(float(w), float(h)) for w, h in head] for head in state["anchors"]], settings)
    run.net.load_state_dict(state["net"])
    run.averaged.load_state_dict(state["averaged"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.step, run.images, run.elapsed_s = state["step"], state["images"], state["elapsed_s"]
    return run
