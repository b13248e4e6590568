"""The training loop: a fixed wall-clock budget, one cycle, always annealed to its end.

Progress is elapsed / budget, and everything that changes over a run (learning rate, picture size) is
a function of it: a slow or shared machine trains fewer steps, never a run that stops half-way hot.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch

from derma_common.preprocess import to_tensor
from derma_training.classifier.augment import augment, evaluation_crop
from derma_training.classifier.checkpoint import load_checkpoint, save_checkpoint
from derma_training.classifier.manifest import CLASSES
from derma_training.classifier.metrics import accuracy, balanced_accuracy
from derma_training.classifier.pack import Pack
from derma_training.classifier.warmstart import warm_start

MEAN = STD = (0.5, 0.5, 0.5)  # as the network that a warm start copies
Clock = Callable[[], float]


@dataclass(frozen=True)
class Recipe:
    """How to train. Sizes are px of the square input; `size` is used in the last part and for measuring."""

    architecture: str = "efficientnet_b0"
    budget_s: float = 3600.0
    size: int = 128
    early_size: int = 96
    early_share: float = 0.3  # of the budget is trained at early_size
    batch: int = 32
    draws_per_epoch: int = 5000  # an epoch is that many draws with replacement, not a pass
    max_lr: float = 6e-4
    weight_decay: float = 0.02
    warmup_share: float = 0.08
    label_smoothing: float = 0.05
    dropout: float = 0.2
    ema_decay: float = 0.998
    seed: int = 0
    threads: int = 2


@dataclass
class Run:
    """The state of a training: what a checkpoint holds."""

    model: Any
    average: Any  # the exponential moving average of the model: what is measured and exported
    optimizer: Any
    epoch: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    warm_started: bool = False


def new_run(recipe: Recipe) -> Run:
    """Build an untrained network, its average and its optimizer."""
    torch.manual_seed(recipe.seed)
    model, average = build(recipe), build(recipe)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(_groups(model, recipe.weight_decay), lr=recipe.max_lr)
    return Run(model, average, optimizer)


def build(recipe: Recipe) -> Any:
    """Build the network through timm, from scratch, for the nine classes."""
    model = timm.create_model(recipe.architecture, num_classes=len(CLASSES), drop_rate=recipe.dropout)
    return model.to(memory_format=torch.channels_last)


def _groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices and kernels, not biases and norms."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def learning_rate(progress: float, recipe: Recipe) -> float:
    """Return one cycle's rate at progress 0..1: linear from a 25th up to max_lr, then cosine to a 1000th."""
    if progress < recipe.warmup_share:
        return recipe.max_lr * (0.04 + 0.96 * progress / recipe.warmup_share)
    fall = min(1.0, (progress - recipe.warmup_share) / (1.0 - recipe.warmup_share))
    return recipe.max_lr * (0.001 + 0.999 * 0.5 * (1.0 + math.cos(math.pi * fall)))


def draw_weights(labels: list[str]) -> npt.NDArray[np.float64]:
    """Return the chance of each picture to be drawn: every class counts as the square root of its size."""
    names, counts = np.unique(labels, return_counts=True)
    weight = dict(zip(names.tolist(), 1.0 / np.sqrt(counts), strict=True))
    weights = np.asarray([weight[label] for label in labels], dtype=np.float64)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def train_one_epoch(run: Run, pack: Pack, recipe: Recipe, clock: Clock = time.monotonic) -> dict[str, float]:
    """Train one epoch, or what the budget leaves of it; return mean loss and images per second."""
    rng = np.random.default_rng((recipe.seed, run.epoch))
    indices = pack.where("train")
    weights = draw_weights([pack.items[i].label for i in indices])
    run.model.train()
    started, elapsed_before, losses = clock(), run.elapsed_s, []
    for _ in range(max(1, recipe.draws_per_epoch // recipe.batch)):
        progress = run.elapsed_s / recipe.budget_s
        if progress >= 1.0:
            break
        size = recipe.early_size if progress < recipe.early_share else recipe.size
        chosen = rng.choice(indices, recipe.batch, p=weights)
        losses.append(_train_step(run, *_batch(pack, chosen, size, rng), learning_rate(progress, recipe), recipe))
        run.elapsed_s = elapsed_before + clock() - started
    run.epoch += 1
    rate = len(losses) * recipe.batch / max(run.elapsed_s - elapsed_before, 1e-9)
    return {"loss": float(np.mean(losses)) if losses else math.nan, "images_per_s": rate}


def _batch(pack: Pack, chosen: npt.NDArray[np.int64], size: int, rng: np.random.Generator) -> tuple[Any, Any]:
    crops = [augment(np.asarray(pack.images[i]), pack.items[i].box, size, rng) for i in chosen]
    labels = [CLASSES.index(pack.items[i].label) for i in chosen]
    images = torch.from_numpy(to_tensor(crops, MEAN, STD)).to(memory_format=torch.channels_last)
    return images, torch.tensor(labels)


def _train_step(run: Run, images: Any, labels: Any, lr: float, recipe: Recipe) -> float:
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    loss = torch.nn.functional.cross_entropy(run.model(images), labels, label_smoothing=recipe.label_smoothing)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.model.parameters(), 5.0)
    run.optimizer.step()
    run.step += 1
    _move_average(run, min(recipe.ema_decay, (1 + run.step) / (10 + run.step)))
    return float(loss.detach())


def _move_average(run: Run, decay: float) -> None:
    """Move the average towards the model: weights and batch statistics alike."""
    with torch.no_grad():
        for kept, new in zip(run.average.state_dict().values(), run.model.state_dict().values(), strict=True):
            if kept.dtype.is_floating_point:
                kept.lerp_(new, 1.0 - decay)
            else:
                kept.copy_(new)


def predict_logits(
    model: Any, pack: Pack, indices: list[int], size: int, boxed: bool = True
) -> npt.NDArray[np.float32]:
    """Return the logits (N, C) of packed pictures, cut as the pipeline does if `boxed`."""
    model.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(indices), 32):
            chosen = indices[start : start + 32]
            crops = [evaluation_crop(np.asarray(pack.images[i]), pack.items[i].box, size, boxed) for i in chosen]
            images = torch.from_numpy(to_tensor(crops, MEAN, STD)).to(memory_format=torch.channels_last)
            parts.append(model(images).numpy())
    return np.concatenate(parts)


def evaluate(model: Any, pack: Pack, size: int) -> dict[str, float]:
    """Measure a network on the calibration part."""
    indices = pack.where("calibration")
    truth = np.asarray([CLASSES.index(pack.items[i].label) for i in indices])
    logits = predict_logits(model, pack, indices, size)
    return {"accuracy": accuracy(logits, truth), "bma": balanced_accuracy(logits, truth)}


def train(pack: Pack, directory: Path, recipe: Recipe, warm: Path | None = None, clock: Clock = time.monotonic) -> Run:
    """Train until the budget is spent, resuming what `directory` holds; a checkpoint and a JSON line per epoch.

    warm: a folded MobileNetV2 to start from, else from scratch.
    """
    torch.set_num_threads(recipe.threads)
    directory.mkdir(parents=True, exist_ok=True)
    run = new_run(recipe)
    if not load_checkpoint(run, directory) and warm is not None:
        chosen = np.random.default_rng(recipe.seed).choice(pack.where("train"), 256)
        warm_start(run.model, warm, _batch(pack, chosen, recipe.size, np.random.default_rng(recipe.seed))[0])
        run.average.load_state_dict(run.model.state_dict())
        run.warm_started = True
    while run.elapsed_s < recipe.budget_s:
        started, elapsed_before = clock(), run.elapsed_s
        figures = train_one_epoch(run, pack, recipe, clock) | evaluate(run.average, pack, recipe.size)
        # measuring counts too: the budget is wall-clock time
        run.elapsed_s = elapsed_before + clock() - started
        save_checkpoint(run, directory, asdict(recipe))
        _log(directory, {"epoch": run.epoch, "step": run.step, "elapsed_s": run.elapsed_s, **figures})
    return run


def _log(directory: Path, figures: dict[str, float]) -> None:
    line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()})
    with (directory / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(line + "\n")
    print(line, flush=True)
