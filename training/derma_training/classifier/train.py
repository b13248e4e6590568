"""Training: epochs until the budget is spent, each measured, saved and logged; taken up again after a kill."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional

from derma_training.classifier.augment.pipelines import AUGMENTATIONS
from derma_training.classifier.batches import Maker
from derma_training.classifier.charts import curves, save
from derma_training.classifier.checkpoint import CHECKPOINT_FILE
from derma_training.classifier.epoch import train_one_epoch
from derma_training.classifier.imbalance import class_weights, epoch_length
from derma_training.classifier.job import Budget, Clock, Criterion, Job
from derma_training.classifier.manifest import Manifest, Row
from derma_training.classifier.network import check_size
from derma_training.classifier.predict import figures, predict_logits, truth_of
from derma_training.classifier.run import Run, new_run, resume, save_best, save_checkpoint
from derma_training.classifier.setup import Setup
from derma_training.classifier.weights import load_weights

LOG_FILE = "log.jsonl"
CURVES_FILE = "curves.png"
SAMPLE = 256  # pictures that a warm start is fitted on


def train(
    manifest: Manifest,
    out: Path,
    setup: Setup,
    budget: Budget,
    *,
    criterion: Criterion | None = None,
    device: str = "cpu",
    threads: int = 2,
    clock: Clock = time.monotonic,
) -> Run:
    """Train until the budget is spent, taking up what `out` holds; a checkpoint and a JSON line per epoch.

    criterion: the loss, else cross-entropy weighted as the recipe says. Raises ConfigError, ModelError, and RunError
    when the loss is no number any more.
    """
    manifest.check_trainable(setup.fold)
    torch.set_num_threads(threads)
    torch.manual_seed(setup.seed)
    cv2.setNumThreads(1)  # pictures are made by threads of their own
    out.mkdir(parents=True, exist_ok=True)
    augmentation = AUGMENTATIONS[setup.recipe.augmentation]
    maker = Maker(augmentation, setup.classes, setup.mean, setup.std, setup.seed)
    rows, calibration = manifest.part("train", setup.fold), manifest.part("calibration", setup.fold)
    criterion = criterion or weighted_cross_entropy(setup, rows, device)
    length = epoch_length([row.label for row in rows], setup.recipe.sampling)
    job = Job(setup, budget, out, tuple(rows), tuple(calibration), maker, length, criterion, device, threads, clock)
    run = _started(job)
    while not job.finished(run):
        line = train_one_epoch(run, job) | {"calibration": evaluate(run, job)}
        _keep_the_best(run, job, line["calibration"]["bma"])
        save_checkpoint(run, setup, out)
        _log(job.out, run, line)
    return run


def _started(job: Job) -> Run:
    """Return the run that `job.out` holds, else a new one with the weights asked for."""
    begun = (job.out / CHECKPOINT_FILE).exists()
    network = job.setup.network(folded=begun and job.setup.folded)
    check_size(network, job.setup.size)
    if job.setup.weights and not begun:
        load_weights(network, job.setup.architecture, job.setup.weights, lambda: _sample(job))
    network.freeze_body(False)
    run = new_run(job.setup, network, job.device)
    if begun:
        resume(run, job.setup, job.out)
    return run


def _sample(job: Job) -> Any:
    chosen = np.random.default_rng(job.setup.seed).choice(len(job.rows), min(SAMPLE, len(job.rows)), replace=False)
    return torch.from_numpy(job.maker.make([job.rows[i] for i in chosen], job.setup.size, 0, 0).images)


def weighted_cross_entropy(setup: Setup, rows: list[Row], device: str) -> Criterion:
    """Return the recipe's loss: cross-entropy with class weights and label smoothing."""
    recipe = setup.recipe
    counts = [sum(row.label == name for row in rows) for name in setup.classes]
    weights = torch.tensor(class_weights(counts, recipe.class_weights, recipe.beta), dtype=torch.float32, device=device)

    def loss(logits: Any, labels: Any, images: Any) -> Any:
        return functional.cross_entropy(logits, labels, weight=weights, label_smoothing=recipe.label_smoothing)

    return loss


def evaluate(run: Run, job: Job) -> dict[str, Any]:
    """Measure the averaged network on the calibration part; the time for it counts too."""
    started, setup = job.clock(), job.setup
    logits = predict_logits(run.average, job.calibration, setup.size, setup.mean, setup.std, setup.encoder)
    run.elapsed_s += job.clock() - started
    return figures(logits, truth_of(job.calibration, setup.classes))


def _keep_the_best(run: Run, job: Job, bma: float) -> None:
    """With early stopping: note whether the epoch was better than all before, and keep its weights if it was."""
    if not job.setup.patience:
        return
    run.stale_epochs += 1
    if bma > run.best_bma:
        run.best_bma, run.stale_epochs = bma, 0
        save_best(run, job.setup, job.out)


def _log(out: Path, run: Run, line: dict[str, Any]) -> None:
    """Append a JSON line to the log, and draw the curves of all of it."""
    known = {"epoch": run.epoch, "step": run.step, "elapsed_s": round(run.elapsed_s, 1)}
    with (out / LOG_FILE).open("a", encoding="utf-8") as log:
        log.write(json.dumps(known | _rounded(line)) + "\n")
    lines = [json.loads(text) for text in (out / LOG_FILE).read_text(encoding="utf-8").splitlines()]
    series = {"training loss": [one["loss"] for one in lines], "learning rate": [one["lr"] for one in lines]}
    for name in ("loss", "bma"):
        series[f"calibration {name}"] = [one["calibration"][name] for one in lines]
    save(curves(series, out.name), out / CURVES_FILE)


def _rounded(line: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _rounded(value) if isinstance(value, dict) else float(f"{value:.5g}") if math.isfinite(value) else None
        for name, value in line.items()
    }
