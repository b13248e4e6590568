"""`evaluate`: measure a model on what is held out; with --choose first set its threshold on the tune split."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from derma_common.inference.card import write_card
from derma_common.inference.detection import Detector
from derma_training.detector import evaluate as measure


def main(arguments: list[str]) -> None:
    """Measure a detector."""
    parser = argparse.ArgumentParser(prog="derma evaluate detector", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--sample", type=Path, default=Path("samples/drawn-exam.mp4"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--write", action="store_true", help="write threshold and figures into the card")
    args = parser.parse_args(arguments)

    detector = Detector.open(args.model, args.threads)
    card = detector.card
    if args.choose:
        tuned = {name: measure.score(detector, pictures) for name, pictures in measure.sources(args.data, "tune")}
        tuned = {name: scored for name, scored in tuned.items() if scored.pictures}
        card = replace(card, score_threshold=measure.choose_threshold(tuned))
        at_choice = {name: measure.figures(scored, card.score_threshold) for name, scored in tuned.items()}
        print(json.dumps({"threshold": card.score_threshold, "tune": at_choice}), flush=True)
    report: dict[str, object] = {}
    held_out = [*measure.sources(args.data, "test"), ("sample_video", measure.recording(args.sample))]
    for name, pictures in held_out:
        report[name] = measure.figures(measure.score(detector, pictures), card.score_threshold)
        print(json.dumps({name: report[name]}), flush=True)
    if args.write:
        command = "python -m derma_training.detector evaluate DATA MODEL_DIR --choose --write"
        day = datetime.now(UTC).date().isoformat()
        said = {"held_out": report, "threshold_chosen_on": "tune split", "command": command, "date": day}
        write_card(replace(card, figures={**card.figures, **said}), args.model)
