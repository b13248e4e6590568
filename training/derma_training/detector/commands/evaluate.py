"""`evaluate`: AP, recall, precision and false positives of a detector on labelled pictures."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from derma_common.config import tile_px_of
from derma_common.inference.detection import Detector
from derma_common.settings import DetectorSettings, TilePx
from derma_common.shipped import model_dir
from derma_training.detector.annotations import Annotations, read_annotations
from derma_training.detector.evaluate.curves import draw_curves
from derma_training.detector.evaluate.gallery import draw_gallery
from derma_training.detector.evaluate.looking import Seen, look_at
from derma_training.detector.evaluate.matching import match_all
from derma_training.detector.evaluate.report import lines, on_skin, report
from derma_training.progress import Progress


def main(arguments: list[str]) -> None:
    """Measure a detector."""
    args = _parser().parse_args(arguments)
    detector = Detector.open(model_dir(args.model), args.threads)
    threshold = detector.card.score_threshold if args.threshold is None else args.threshold
    say(f"{detector.card.id}, threshold {threshold:g}")
    found = read(args.data, args.split)
    seen = look(detector, found, args.tile)
    document = {
        "model": detector.card.id,
        "data": str(args.data),
        "format": found.format,
        "tile": args.tile,
        **report(seen, threshold, args.bootstrap),
        "labels": found.report.as_json(),
    }
    if args.skin is not None:
        document["skin"] = on_skin(seen, look(detector, read(args.skin), args.tile), threshold)
    if args.pictures is not None:
        for line in draw_gallery(seen, threshold, args.pictures):
            say(line)
    if args.curves is not None:
        draw_curves(match_all(seen), threshold, args.curves / "curves.png")
        say(f"{args.curves / 'curves.png'}")
    print(json.dumps(document) if args.json else "\n".join(lines(document)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="derma evaluate detector", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder, COCO json or table (CSV) of labelled pictures"
    )
    parser.add_argument("--model", default=DetectorSettings().model, help="a shipped name or a folder (%(default)s)")
    parser.add_argument("--split", choices=("train", "val", "test"), help="only this split of the data")
    parser.add_argument("--tile", type=tile_px_of, default=0, help="look at tiles of this side in px too, or `auto`")
    parser.add_argument("--threshold", type=float, help="score above which a box counts (the card's)")
    parser.add_argument("--bootstrap", type=int, default=0, metavar="N", help="95 %% intervals from N samples")
    parser.add_argument("--skin", type=Path, metavar="DIR", help="pictures without lesions, for false positives there")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write sheets of hits, misses, false positives")
    parser.add_argument("--curves", type=Path, metavar="DIR", help="write curves.png (needs derma[bench])")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="of one inference (all cores)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def read(place: Path, split: str | None = None) -> Annotations:
    """Read labelled pictures and say on stderr what was read and what is wrong with it. Raises SourceError."""
    found = read_annotations(place, split)
    ignored = sum(len(picture.ignored) for picture in found.pictures)
    classes = f", classes {' '.join(found.classes)}, all taken as lesions" if len(found.classes) > 1 else ""
    say(f"{place}: {found.format}; {len(found.pictures)} pictures, {found.boxes} boxes, {ignored} ignored{classes}")
    for line in found.report.lines():
        say(f"  {line}")
    splits = sorted({picture.split for picture in found.pictures} - {""})
    if split is None and len(splits) > 1:
        say(f"  splits {', '.join(splits)} are measured together; --split takes one")
    return found


def look(detector: Detector, found: Annotations, tile: TilePx) -> list[Seen]:
    """Run the detector over all pictures."""
    seen = []
    with Progress("pictures", len(found.pictures), sys.stderr) as progress:
        for one in look_at(detector, found.pictures, tile):
            seen.append(one)
            progress.step()
    return seen


def say(line: str) -> None:
    """Tell a person what goes on."""
    print(line, file=sys.stderr, flush=True)
