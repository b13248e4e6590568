"""The end of a training run: the model directory with its card, figures and plots."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from derma_common.errors import ResourceError
from derma_common.inference.card import ModelCard, write_card
from derma_common.inference.detection import Detector
from derma_training.detector import plots
from derma_training.detector.data import Data, Part
from derma_training.detector.evaluate import (
    Matches,
    choose_threshold,
    figures,
    intervals,
    look_at,
    match_all,
    precision_recall,
)
from derma_training.detector.export import draft_card, export
from derma_training.detector.torch_runner import TorchRunner
from derma_training.detector.train import LOG, Run

START_THRESHOLD = 0.25  # of the card until one is chosen
HELD_OUT: tuple[Part, ...] = ("tune", "test")
NOTES = (
    "research; not a medical device: a box says where to look, not what is there",
    "held_out: pictures of the folders it was trained on, by patient or lesion where their labels name one",
)
SAMPLES = 500  # of the bootstrap


def card_of(run: Run, name: str, licence: str, data: Data) -> ModelCard:
    """Return the card of a run's network, without file and figures."""
    _, height, width = run.averaged.config.input
    card = draft_card(name, run.averaged, width, height, run.classes, licence)
    sources = {picture.source for picture in data.part("train").pictures}
    counts = {source: sum(p.source == source for p in data.part("train").pictures) for source in sorted(sources)}
    said = tuple(f"{source}: {count} pictures" for source, count in counts.items())
    return replace(card, training_data=said, score_threshold=START_THRESHOLD, notes=NOTES)


def measure(run: Run, data: Data, name: str) -> dict[str, Any]:
    """Return the averaged network's figures on the tune split, as it stands in training."""
    run.averaged.eval()
    detector = Detector(card_of(run, name, "", data), TorchRunner(run.averaged, run.device))
    matches = match_all(look_at(detector, data.part("tune").pictures))
    return figures(matches, START_THRESHOLD)


def finish(run: Run, data: Data, directory: Path, licence: str) -> ModelCard:
    """Export the averaged network into `directory`, choose its threshold, measure it and write the card.

    The threshold is chosen on the tune split; the figures are those of the test split, which nothing has seen.
    Raises ResourceError when the disk does not take it.
    """
    net = run.averaged.to(torch.device("cpu"))
    card = export(net, directory, card_of(run, directory.name, licence, data))
    detector = Detector.open(directory, torch.get_num_threads())
    seen = {part: list(look_at(detector, data.part(part).pictures)) for part in HELD_OUT}
    detector.close()
    sources = sorted({one.picture.source for one in seen["tune"]})
    by_source = {name: match_all(one for one in seen["tune"] if one.picture.source == name) for name in sources}
    threshold = choose_threshold(by_source)
    matches = {part: match_all(seen[part]) for part in HELD_OUT}
    between = intervals(matches["test"], threshold, SAMPLES)
    said = {
        "held_out": {**figures(matches["test"], threshold), "intervals": between},
        "tune": figures(matches["tune"], threshold),
        "threshold_chosen_on": "tune split",
        "images_shown": run.images,
        "minutes": round(run.elapsed_s / 60, 1),
        "date": datetime.now(UTC).date().isoformat(),
    }
    card = replace(card, score_threshold=threshold, figures={**card.figures, **said})
    try:
        write_card(card, directory)
        _plot(directory, matches, threshold)
    except OSError as error:
        raise ResourceError(
            f"{directory} cannot be written: {error.strerror}; the checkpoint is kept: make room and run the same "
            "command again"
        ) from error
    return card


def _plot(directory: Path, parts: dict[Part, Matches], threshold: float) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        print("no plots: they need matplotlib (pip install 'derma[bench]')", file=sys.stderr)
        return
    if (directory / LOG).exists():
        plots.plot_losses(directory / LOG, directory / plots.LOSSES)
    curves = {str(name): precision_recall(matches) for name, matches in parts.items()}
    plots.plot_pr(curves, threshold, directory / plots.PR_CURVE)
