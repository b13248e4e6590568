"""`figures`: measure a shipped model on what its training did not see; with --write fill its card with it.

DATA is a folder that holds the data sets which derma_training.detector.sources names. With --choose the threshold is
first set on their tune splits.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from derma_common.inference.card import write_card
from derma_common.inference.detection import Detector
from derma_common.settings import TilePx
from derma_common.shipped import model_dir
from derma_training.detector.annotations import Annotated
from derma_training.detector.evaluate import Matches, choose_threshold, figures, intervals, look_at, match_all
from derma_training.detector.sources import SOURCES, recording

SAMPLES = 1000  # of the bootstrap
TILED = "itobos_tiled"  # the wide fields a second time, with tiles


def main(arguments: list[str]) -> None:
    """Measure a shipped detector."""
    parser = argparse.ArgumentParser(prog="python -m derma_training.detector figures", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("model")
    parser.add_argument("--sample", type=Path, default=Path("samples/drawn-exam.mp4"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--write", action="store_true", help="write threshold and figures into the card")
    args = parser.parse_args(arguments)

    directory = model_dir(args.model)
    detector = Detector.open(directory, args.threads)
    card = detector.card
    if args.choose:
        tuned = {name: matches for name, matches in _measured(detector, args.data, "tune") if len(matches.truths)}
        card = replace(card, score_threshold=choose_threshold(tuned))
        at_choice = {name: figures(matches, card.score_threshold) for name, matches in tuned.items()}
        print(json.dumps({"threshold": card.score_threshold, "tune": at_choice}), flush=True)
    report: dict[str, Any] = {}
    for name, matches in _measured(detector, args.data, "test", args.sample):
        between = intervals(matches, card.score_threshold, SAMPLES)
        report[name] = figures(matches, card.score_threshold) | {"intervals": between}
        print(json.dumps({name: report[name]}), flush=True)
    if args.write:
        command = "python -m derma_training.detector figures DATA MODEL --choose --write"
        day = datetime.now(UTC).date().isoformat()
        said = {"held_out": report, "threshold_chosen_on": "tune split", "command": command, "date": day}
        write_card(replace(card, figures={**card.figures, **said}), directory)


def _measured(detector: Detector, data: Path, split: str, sample: Path | None = None) -> Iterable[tuple[str, Matches]]:
    """Name and match everything that a split holds, one data set at a time."""
    sets: list[tuple[str, Iterable[Annotated], TilePx]] = [
        (name, source(data, split), 0) for name, source in SOURCES.items()
    ]
    sets.append((TILED, SOURCES["itobos"](data, split), "auto"))
    if sample is not None:
        sets.append(("sample_video", recording(sample), 0))
    for name, pictures, tile_px in sets:
        yield name, match_all(look_at(detector, pictures, tile_px))
