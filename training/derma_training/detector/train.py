"""The training loop of a detector: a run, one epoch of it, and what a checkpoint holds.

A budget is a number of epochs or of minutes; progress towards it drives the learning rate and the picture sizes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from derma_common.errors import ModelError, ResourceError, RunError
from derma_training.detector import checkpoint, schedule
from derma_training.detector.augment import Sample, augmented
from derma_training.detector.cfg import Config, Head, Yolo
from derma_training.detector.cfg_reader import parse_cfg
from derma_training.detector.data import Feed, collate
from derma_training.detector.layers import Darknet
from derma_training.detector.yolo_loss import yolo_loss

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
SAME_SIZE_STEPS = 10  # multi-scale: a size is kept for so many steps (Darknet)


@dataclass(frozen=True)
class TrainSettings:
    """How long and how to train. One of `epochs` and `minutes` is the budget."""

    epochs: int | None = None
    minutes: float | None = None
    size: int = 416  # px of the finished network's input
    batch: int = 16  # pictures of the final size; more of smaller ones
    peak_rate: float = 1.5e-3
    schedule: schedule.Shape = "cosine"
    burn_in: int = 150  # steps
    weight_decay: float = 5e-3
    ema: float = 0.996
    epoch_images: int = 800
    seed: int = 0
    workers: int = 1  # threads that make pictures
    # None: the cfg's. Darknet's box weight of 0.07 belongs to its 2 M SGD steps; in a short AdamW run it leaves boxes
    # loose. And yolov4-tiny.cfg names no iou_thresh, which leaves each truth a single anchor.
    iou_normalizer: float | None = 1.0
    iou_thresh: float | None = 0.213


@dataclass
class Run:
    """A training run: what a checkpoint holds, and the device it is on."""

    net: Darknet
    averaged: Darknet
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    classes: tuple[str, ...]
    epoch: int = 0
    step: int = 0
    images: int = 0
    elapsed_s: float = 0.0

    def progress(self, settings: TrainSettings, epoch_share: float = 0.0) -> float:
        """Return the share of the budget that is spent, in [0, 1]."""
        if settings.minutes is not None:
            return min(1.0, self.elapsed_s / (settings.minutes * 60))
        return min(1.0, (self.epoch + epoch_share) / (settings.epochs or 1))


def start(config: Config, classes: tuple[str, ...], settings: TrainSettings, device: str = "cpu") -> Run:
    """Return a run with fresh weights; `classes` are the names of what the network tells apart."""
    torch.manual_seed(settings.seed)
    place = torch.device(device)
    net = Darknet(config).to(place, memory_format=torch.channels_last)
    averaged = Darknet(config).to(place, memory_format=torch.channels_last)
    averaged.load_state_dict(net.state_dict())
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.peak_rate)
    scaler = torch.amp.GradScaler(place.type, enabled=place.type == "cuda")
    return Run(net, averaged.eval(), optimizer, scaler, place, classes)


def save(run: Run, directory: Path) -> None:
    """Write the run's checkpoint atomically. Raises ResourceError; the last good one is kept."""
    state = {
        "cfg": run.net.config.text, "classes": list(run.classes),
        "net": run.net.state_dict(), "averaged": run.averaged.state_dict(),
        "optimizer": run.optimizer.state_dict(), "scaler": run.scaler.state_dict(),
        "epoch": run.epoch, "step": run.step, "images": run.images, "elapsed_s": run.elapsed_s,
    }  # fmt: skip
    checkpoint.save(state, directory / CHECKPOINT)


def resume(file: Path, settings: TrainSettings, device: str = "cpu", wanted: Config | None = None) -> Run:
    """Return the run as a checkpoint left it.

    Raises ModelError when it is damaged, or of another network, input or number of classes than `wanted`.
    """
    state = checkpoint.load(file)
    try:
        config = parse_cfg(state["cfg"])
        if wanted is not None and _outline(config) != _outline(wanted):
            raise ModelError(
                f"{file} is of another network, input or number of classes than this run asks for; "
                "name the same ones, or another --out"
            )
        run = start(config, tuple(str(name) for name in state["classes"]), settings, device)
        for name in ("net", "averaged", "optimizer", "scaler"):
            getattr(run, name).load_state_dict(state[name])
        run.epoch, run.step, run.images = int(state["epoch"]), int(state["step"]), int(state["images"])
        run.elapsed_s = float(state["elapsed_s"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        said = str(error).partition("\n")[0][:120]
        raise ModelError(f"{file} is incomplete ({said}); remove it to start anew") from error
    return run


def _outline(config: Config) -> tuple[Any, ...]:
    """Return what two runs of one network share: its layers but for the anchors, and its input."""
    bare = [replace(layer, anchors=()) if isinstance(layer, Yolo) else layer for layer in config.layers]
    return config.input, tuple(bare)


def loss_heads(net: Darknet, settings: TrainSettings) -> list[Head]:
    """Return the network's heads with the box weight and the assignment threshold of the settings."""
    weight, least = settings.iou_normalizer, settings.iou_thresh
    return [
        replace(
            head,
            yolo=replace(
                head.yolo,
                iou_normalizer=head.yolo.iou_normalizer if weight is None else weight,
                iou_thresh=head.yolo.iou_thresh if least is None else least,
            ),
        )
        for head in net.heads
    ]


class Batches:
    """Makes the next batch in threads while the network learns from the last."""

    def __init__(self, feed: Feed, settings: TrainSettings, pool: ThreadPoolExecutor) -> None:
        self._feed, self._settings, self._pool = feed, settings, pool
        self._ordered: list[Future[Sample]] = []

    def order(self, step: int, progress: float) -> None:
        """Begin the batch of a step; the same step is the same pictures, however many threads there are."""
        settings = self._settings
        sizes = np.random.default_rng((settings.seed, step // SAME_SIZE_STEPS))
        size = schedule.size_at(progress, sizes, settings.size)
        count = schedule.batch_at(size, settings.size, settings.batch)
        self._ordered = [self._pool.submit(self._one, (settings.seed, step, n), size) for n in range(count)]

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """Wait for the batch that was ordered; images (N, 3, S, S), truths (M, 6), ignored (K, 5)."""
        return collate([future.result() for future in self._ordered])

    def _one(self, seed: tuple[int, ...], size: int) -> Sample:
        return augmented(np.random.default_rng(seed), self._feed.draw, size)


def train_one_epoch(
    run: Run, feed: Feed, settings: TrainSettings, tell: Callable[[Run, float, float], None]
) -> dict[str, Any]:
    """Show the network `epoch_images` pictures, or fewer if the minutes end; returns the epoch's figures.

    `tell(run, progress, loss)` is called after each step. Raises RunError when the loss is no number any more.
    """
    began, before, first_step = time.monotonic(), run.elapsed_s, run.step
    heads = loss_heads(run.net, settings)
    sums: dict[str, Tensor] = {}
    shown, rate, size = 0, 0.0, settings.size
    run.net.train()
    with ThreadPoolExecutor(settings.workers) as pool:
        batches = Batches(feed, settings, pool)
        progress = run.progress(settings)
        batches.order(run.step, progress)
        while shown < settings.epoch_images and progress < 1:
            images, truths, ignored = (part.to(run.device, non_blocking=True) for part in batches.take())
            shown, size = shown + len(images), images.shape[2]
            upcoming = run.progress(settings, shown / settings.epoch_images)
            if shown < settings.epoch_images and upcoming < 1:
                batches.order(run.step + 1, upcoming)
            rate = schedule.rate_at(progress, run.step, settings.peak_rate, settings.burn_in, settings.schedule)
            parts = _step(run, heads, images, truths, ignored, rate, settings.ema)
            sums = {name: sums.get(name, 0) + value for name, value in parts.items()}
            run.elapsed_s = before + time.monotonic() - began
            progress = run.progress(settings, shown / settings.epoch_images)
            tell(run, progress, float(sum(parts.values())))
    steps = max(1, run.step - first_step)
    figures = {name: round(float(value) / steps, 4) for name, value in sums.items()}
    if not all(math.isfinite(value) for value in figures.values()):
        raise RunError(f"the loss is no number any more after step {run.step}: start anew with a lower --rate")
    run.epoch, run.images = run.epoch + 1, run.images + shown
    return {
        "epoch": run.epoch, "step": run.step, "images": run.images, "minutes": round(run.elapsed_s / 60, 2),
        "rate": float(f"{rate:.3g}"), "size": size,
        "images_per_s": round(shown / max(1e-6, run.elapsed_s - before), 2), **figures,
    }  # fmt: skip


def _step(
    run: Run, heads: list[Head], images: Tensor, truths: Tensor, ignored: Tensor, rate: float, ema: float
) -> dict[str, Tensor]:
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast(run.device.type, torch.float16, enabled=run.device.type == "cuda"):
        raws = run.net(images.contiguous(memory_format=torch.channels_last))
    loss, parts = yolo_loss(raws, heads, truths, ignored, run.scaler.get_scale())
    run.optimizer.zero_grad(set_to_none=True)
    run.scaler.scale(loss).backward()
    run.scaler.unscale_(run.optimizer)
    nn.utils.clip_grad_norm_(run.net.parameters(), 20.0)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.step += 1
    _average(run, min(ema, (1 + run.step) / (10 + run.step)))
    return parts


@torch.no_grad()  # type: ignore[untyped-decorator]
def _average(run: Run, keep: float) -> None:
    """Move the averaged weights (and batch statistics) towards the trained ones."""
    for mean, new in zip(run.averaged.state_dict().values(), run.net.state_dict().values(), strict=True):
        if mean.dtype.is_floating_point:
            mean.lerp_(new, 1 - keep)


def log_epoch(line: dict[str, Any], directory: Path) -> None:
    """Print an epoch's line of JSON and append it to the run's log. Raises ResourceError when that is full."""
    text = json.dumps(line)
    print(text, flush=True)
    try:
        with (directory / LOG).open("a", encoding="utf-8") as log:
            log.write(text + "\n")
    except OSError as error:
        raise ResourceError(f"{directory / LOG} cannot be written: {error.strerror}; the checkpoint is kept") from error
