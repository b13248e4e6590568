"""`derma models bench`: how long a network takes with each runner that this machine offers."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from derma_cli.options import AsJson, ConfigFile, resolve
from derma_common.errors import DermaError
from derma_common.inference.card import ModelCard, read_card
from derma_common.inference.choice import choice_of, usable
from derma_common.inference.opening import open_runner
from derma_common.inference.probe import probe
from derma_common.inference.runner import Array, Runner
from derma_common.settings import Settings
from derma_common.shipped import model_dir, shipped_models

WARM_UP = 3
LEAST_CALLS = 5


@dataclass(frozen=True, slots=True)
class Timed:
    """Calls of a network: ms of one, and pictures in a second."""

    model: str
    runner: str
    batch: int
    calls: int
    p50_ms: float
    p99_ms: float
    pictures_per_s: float


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Shipped names or folders; without any, all shipped."),
    ] = None,
    batches: Annotated[list[int] | None, typer.Option("--batch", min=1, help="Pictures in a call; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(min=0.0, help="Of each row, at least five calls.")] = 2.0,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Time networks with every runner that this machine offers, tensors in and out of the host's memory."""
    settings = resolve(config, None)
    directories = [model_dir(name) for name in models] if models else shipped_models()
    rows, lacking = measure_all(settings, directories, batches or [1], seconds)
    for runner, reason in lacking.items():
        print(f"not measured, {runner}: {reason}", file=sys.stderr)
    if as_json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "not_measured": lacking}))
        return
    print(f"{'model':<28}{'runner':<32}{'batch':>6}{'p50 ms':>9}{'p99 ms':>9}{'pictures/s':>12}")
    for r in rows:
        print(f"{r.model:<28}{r.runner:<32}{r.batch:>6}{r.p50_ms:>9.2f}{r.p99_ms:>9.2f}{r.pictures_per_s:>12.1f}")


def measure_all(
    settings: Settings, directories: list[Path], batches: list[int], seconds: float
) -> tuple[list[Timed], dict[str, str]]:
    """Time each model with each usable runner and each batch; also return why something was not measured, by runner."""
    rows: list[Timed] = []
    lacking: dict[str, str] = {}
    for directory in directories:
        card = read_card(directory)
        section = settings.detector if card.kind == "detector" else settings.classifier
        fitting = [batch for batch in batches if batch <= card.input.max_batch]
        if fitting != batches:
            lacking[card.name] = f"it takes at most {card.input.max_batch} pictures at once"
        for name, reason in usable(probe(), section.gpu).items():
            if reason:
                lacking[name] = reason
                continue
            choice = replace(choice_of(section, settings.run), runner=name)
            try:
                _, runner = open_runner(directory, card.kind, section.threads, choice)
            except DermaError as error:  # an engine that was refused, a library of another version: the others go on
                lacking[f"{card.name}, {name}"] = str(error)
                continue
            with runner:
                rows += [time_calls(card, runner, batch, seconds) for batch in fitting]
    return rows, lacking


def pictures_of(card: ModelCard, batch: int) -> dict[str, Array]:
    """Return random input (batch, 3, H, W) float32 in [0, 1]."""
    shape = (batch, 3, card.input.height, card.input.width)
    return {card.input.name: np.random.default_rng(0).random(shape, dtype=np.float32)}


def time_calls(card: ModelCard, runner: Runner, batch: int, seconds: float) -> Timed:
    """Call a network for `seconds`, at least LEAST_CALLS times, after a warm-up."""
    inputs = pictures_of(card, batch)
    for _ in range(WARM_UP):
        runner.infer(inputs)
    times_ms: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(times_ms) < LEAST_CALLS:
        started = time.monotonic_ns()
        runner.infer(inputs)
        times_ms.append((time.monotonic_ns() - started) / 1e6)
    p50, p99 = np.percentile(times_ms, [50, 99])
    rate = batch * len(times_ms) / (sum(times_ms) / 1e3)
    return Timed(
        card.name, runner.name, batch, len(times_ms), round(float(p50), 3), round(float(p99), 3), round(rate, 1)
    )
