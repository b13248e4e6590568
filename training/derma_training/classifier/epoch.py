"""One epoch: batches in, steps taken, rates and averages moved.

Everything that changes over a run (rates, frozen layers, picture size) is a function of its progress, steps done of
all steps or seconds spent of the budget; so a budget on a slow machine means fewer steps, never a run cut off hot.
"""

from __future__ import annotations

import math
from contextlib import closing
from typing import Any

import numpy as np
import torch

from derma_common.errors import RunError
from derma_training.classifier.batches import Batch, batches
from derma_training.classifier.imbalance import epoch_order, source_factors
from derma_training.classifier.job import Job
from derma_training.classifier.run import Run, save_checkpoint
from derma_training.classifier.schedules import layer_rates, momentum, one_cycle, size_at, stage_at, stepwise
from derma_training.progress import Progress

SAVE_EVERY_S = 300.0


def train_one_epoch(run: Run, job: Job) -> dict[str, Any]:
    """Train one epoch, or what the budget or an earlier kill leaves of it; return its figures."""
    recipe = job.setup.recipe
    rng = np.random.default_rng((job.setup.seed, run.epoch))
    within = source_factors([row.source for row in job.rows], recipe.source_emphasis)
    order = epoch_order(job.labels, recipe.sampling, rng, recipe.emphasis, within)
    rows = [job.rows[i] for i in order]
    starts = range(run.position, job.steps_per_epoch * job.batch, job.batch)
    first_step, before_s, last_s, saved_s, losses = run.step, run.elapsed_s, job.clock(), 0.0, []

    def size(ahead: int) -> int:
        progress = job.progress(first_step + ahead, run.elapsed_s)
        return size_at(progress, job.setup.size, recipe.early_share, recipe.early_scale)

    run.network.train()
    with (
        closing(batches(job.maker, rows, starts, job.batch, size, run.epoch, job.threads)) as stream,
        Progress(f"epoch {run.epoch + 1}", len(starts)) as bar,
    ):
        for batch in stream:
            losses.append(_train_step(run, job, batch))
            run.position += job.batch
            now = job.clock()
            run.elapsed_s, last_s, saved_s = run.elapsed_s + now - last_s, now, saved_s + now - last_s
            bar.step(note=f"loss {losses[-1]:.3f}")
            if job.progress(run.step, run.elapsed_s) >= 1.0:
                break
            if saved_s >= SAVE_EVERY_S:
                save_checkpoint(run, job.setup, job.out)
                saved_s = 0.0
    run.epoch, run.position = run.epoch + 1, 0
    rate = len(losses) * job.batch / max(run.elapsed_s - before_s, 1e-9)
    return {"loss": float(np.mean(losses)), "images_per_s": rate, "lr": run.optimizer.param_groups[-1]["lr"]}


def _train_step(run: Run, job: Job, batch: Batch) -> float:
    """Take one step. Raises RunError when the loss is not finite."""
    recipe = job.setup.recipe
    _set_rates(run, job)
    images = torch.from_numpy(batch.images).to(job.device, memory_format=torch.channels_last, non_blocking=True)
    labels = torch.from_numpy(batch.labels).to(job.device)
    encoder = job.setup.encoder
    about = torch.from_numpy(encoder.encode(batch.rows)).to(job.device) if encoder else None
    half = torch.bfloat16 if job.device == "cpu" or torch.cuda.is_bf16_supported() else torch.float16
    with torch.autocast(job.device, half, enabled=job.device == "cuda"):
        logits = run.network(images, about)
    loss = job.criterion(logits.float(), labels, images)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise RunError(
            f"the loss became {value} in epoch {run.epoch + 1}, step {run.step + 1}: use a smaller --lr in another "
            f"--out; the last checkpoint of {job.out} is from before"
        )
    run.optimizer.zero_grad(set_to_none=True)
    run.scaler.scale(loss).backward()
    if recipe.clip_norm:
        run.scaler.unscale_(run.optimizer)
        torch.nn.utils.clip_grad_norm_(run.network.parameters(), recipe.clip_norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.step += 1
    if recipe.ema_decay:
        _move_average(run, min(recipe.ema_decay, (1 + run.step) / (10 + run.step)))
    return value


def _set_rates(run: Run, job: Job) -> None:
    """Set rates, momentum and frozen layers for where the run is."""
    recipe = job.setup.recipe
    stage, within = stage_at(recipe.stages, job.progress(run.step, run.elapsed_s))
    if run.network.frozen is not (stage.body_lr == 0.0):
        run.network.freeze_body(stage.body_lr == 0.0)
    part = stepwise(run.epoch) if recipe.schedule == "steps" else one_cycle(within, recipe.warmup_share)
    rates = layer_rates(stage, groups=3)
    for group in run.optimizer.param_groups:
        group["lr"] = rates[group["layer"]] * part
        if recipe.cycle_momentum:
            group["betas"] = (momentum(within, recipe.warmup_share), group["betas"][1])


def _move_average(run: Run, decay: float) -> None:
    """Move the average towards the model: weights and batch statistics alike."""
    with torch.no_grad():
        for kept, new in zip(run.average.state_dict().values(), run.network.state_dict().values(), strict=True):
            if kept.dtype.is_floating_point:
                kept.lerp_(new, 1.0 - decay)
            else:
                kept.copy_(new)
