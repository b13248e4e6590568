"""`quantize`: make the int8 build of a detector for CPUs, and say what it changes.

Scales are calibrated on pictures of the train split, or of one half of the patients where the data know no splits;
agreement with fp32 and AP50 are measured on all others.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from derma_common.config import tile_px_of
from derma_common.errors import SourceError
from derma_common.inference.card import write_card
from derma_common.inference.detection import Detector
from derma_common.preprocess import Image
from derma_common.settings import TilePx
from derma_common.shipped import model_dir
from derma_training.detector.annotations import Annotated, read_annotations
from derma_training.detector.commands.evaluate import say
from derma_training.detector.evaluate.looking import Seen, look_at
from derma_training.progress import Progress

CALIBRATION_PICTURES = 120


def main(arguments: list[str]) -> None:
    """Quantise a detector."""
    args = _parser().parse_args(arguments)
    from derma_training.detector.quantize import quantize
    from derma_training.detector.quantize_judge import judge

    source = model_dir(args.model)
    pictures = [picture for place in args.data for picture in _read(place)]
    calibration, held_out = split(pictures, args.seed)
    with Progress("calibration", len(calibration), sys.stderr) as progress:
        card = quantize(source, _images(calibration, progress), args.out)
    before, after = (_look(directory, held_out, args) for directory in (source, args.out))
    report = judge(before, after, card.score_threshold)
    card = replace(card, figures={**card.figures, **report})
    write_card(card, args.out)
    print(json.dumps({"model": card.id, **card.figures}) if args.json else "\n".join(_lines(card.id, card.figures)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m derma_training.detector quantize", description=__doc__)
    parser.add_argument("--model", required=True, help="the fp32 model: a shipped name or a folder")
    parser.add_argument("--data", type=Path, action="append", required=True, help="labelled pictures, as for evaluate")
    parser.add_argument("--out", type=Path, required=True, help="folder of the int8 model")
    parser.add_argument("--tile", type=tile_px_of, default=0, help="measure with tiles of this side in px, or `auto`")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of one inference")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of pictures")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def split(pictures: Sequence[Annotated], seed: int) -> tuple[list[Annotated], list[Annotated]]:
    """Return pictures to calibrate on, of each source as many, and pictures of others to measure on.

    Raises SourceError when one of the two would be empty.
    """
    rng = np.random.default_rng(seed)
    sources: dict[str, list[Annotated]] = defaultdict(list)
    for n in rng.permutation(len(pictures)):
        sources[pictures[n].source].append(pictures[n])
    share = -(-CALIBRATION_PICTURES // max(1, len(sources)))
    chosen: list[Annotated] = []
    rest: list[Annotated] = []
    for own in sources.values():
        if {picture.split for picture in own} > {"train"}:
            own_half = [picture for picture in own if picture.split == "train"]
            rest += [picture for picture in own if picture.split != "train"]
        else:
            groups = list(dict.fromkeys(_group(picture) for picture in own))
            drawn = set(groups[: len(groups) // 2])
            own_half = [picture for picture in own if _group(picture) in drawn]
            rest += [picture for picture in own if _group(picture) not in drawn]
        chosen += own_half[:share]
    if not chosen or not rest:
        raise SourceError("the pictures cannot be divided into some to calibrate on and some to measure on: give more")
    return chosen, rest


def _read(place: Path) -> Sequence[Annotated]:
    found = read_annotations(place)
    for line in (f"{place}: {found.format}; {len(found.pictures)} pictures", *found.report.lines()):
        say(line)
    return found.pictures


def _group(picture: Annotated) -> str:
    return picture.group or str(picture.path)


def _images(pictures: Sequence[Annotated], progress: Progress) -> Iterator[Image]:
    for picture in pictures:
        yield picture.image()
        progress.step()


def _look(directory: Path, pictures: Sequence[Annotated], args: argparse.Namespace) -> list[Seen]:
    tile: TilePx = args.tile
    detector = Detector.open(directory, args.threads)
    say(detector.card.id)
    seen = []
    with Progress("pictures", len(pictures), sys.stderr) as progress:
        for one in look_at(detector, pictures, tile):
            seen.append(one)
            progress.step()
    detector.close()
    return seen


def _lines(model: str, figures: dict[str, Any]) -> list[str]:
    """Return the report for a person."""
    found = figures["agreement"]
    text = [
        f"{model}, from {figures['quantised_from']}, calibrated on {figures['calibration_pictures']} pictures",
        f"{found['n_images']} other pictures: of {found['boxes']} boxes above {found['threshold']:g} "
        f"{found['lost']} lost, {found['new']} new",
    ]
    if found["score_difference"] is not None:
        score, overlap = found["score_difference"], found["iou"]
        text.append(f"score differs by {score['mean']} (p95 {score['p95']}, worst {score['worst']})")
        text.append(f"IoU of the boxes {overlap['mean']} (p5 {overlap['p5']}, worst {overlap['worst']})")
    for name, value in figures.get("ap50", {}).items():
        low, high = value["interval_95"]
        text.append(f"AP50 {name} {value['value']} [{low}, {high}]")
    return text
