"""One session of training: begin or go on, train until the budget is spent, and tell a person how far it is."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from derma_common.errors import ResourceError
from derma_training.detector import train as training
from derma_training.detector.cfg import Config
from derma_training.detector.data import Data, Feed, choose_anchors
from derma_training.detector.finish import measure
from derma_training.detector.networks import network
from derma_training.detector.start import anchors_beside, begin_from
from derma_training.detector.train import Run, TrainSettings

MEASURED = 10  # times in a run that the tune split is measured


def open_run(
    name: str, data: Data, settings: TrainSettings, out: Path, device: str = "cpu", weights: Path | None = None
) -> Run:
    """Return the run whose checkpoint lies in `out`, or a new one of network `name`, from `weights` where given.

    Raises UserError: ConfigError or ModelError for a network, ModelError for weights and a checkpoint that do not fit
    it, ResourceError when `out` cannot be made.
    """
    config = network(name, len(data.classes), settings.size, settings.size)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{out} cannot be made: {error.strerror}") from error
    if (out / training.CHECKPOINT).exists():
        run = training.resume(out / training.CHECKPOINT, settings, device, config)
        print(f"going on after {run.images} pictures, {run.elapsed_s / 60:.1f} minutes", file=sys.stderr)
        return run
    return _begin(name, config, data, settings, device, weights)


def _begin(name: str, config: Config, data: Data, settings: TrainSettings, device: str, weights: Path | None) -> Run:
    """Start a run: anchors fitted to the data (or those of the model it starts from), fresh or given weights."""
    feed = Feed(data.part("train"))
    anchors = anchors_beside(weights) if weights else None
    if anchors is None:
        strides = [head.stride for head in config.heads]
        anchors = choose_anchors(feed, settings.size, strides, len(config.heads[0].anchors), settings.seed)
    fitted = network(name, len(data.classes), settings.size, settings.size, anchors)
    run = training.start(fitted, data.classes, settings, device)
    if weights:
        print(f"starting from {begin_from(run, weights, feed, settings)}", file=sys.stderr)
    print(f"anchors: {json.dumps(anchors)}", file=sys.stderr)
    return run


def train_to_end(run: Run, data: Data, settings: TrainSettings, out: Path) -> None:
    """Train until the budget is spent; after each epoch a checkpoint and a line of JSON."""
    feed, progress = Feed(data.part("train")), Progress()
    while run.progress(settings) < 1:
        before = run.progress(settings)
        line = training.train_one_epoch(run, feed, settings, progress)
        progress.clear()
        if int(MEASURED * before) < int(MEASURED * run.progress(settings)):
            line["tune"] = measure(run, data, out.name)
        training.save(run, out)
        training.log_epoch(line, out)


class Progress:
    """One line on stderr that is written over; where stderr is no terminal, a line a minute."""

    def __init__(self) -> None:
        self._last_s, self._live = 0.0, sys.stderr.isatty()

    def __call__(self, run: Run, progress: float, loss: float) -> None:
        """Tell where the run is."""
        now = time.monotonic()
        if now - self._last_s < (0.5 if self._live else 60.0):
            return
        left = (run.elapsed_s / progress - run.elapsed_s) / 60 if progress > 0 else 0.0
        bar = "#" * round(20 * progress)
        text = f"[{bar:<20}] {progress:4.0%} epoch {run.epoch + 1} step {run.step} loss {loss:.2f} {left:.0f} min left"
        print(f"\r{text:<78}" if self._live else text, end="" if self._live else "\n", file=sys.stderr, flush=True)
        self._last_s = now

    def clear(self) -> None:
        """Take the line away, so that an epoch's line of JSON stands alone."""
        if self._live:
            print("\r" + " " * 78 + "\r", end="", file=sys.stderr, flush=True)
