"""`mine`: collect what a detector wrongly finds on pictures without lesions, to train on.

OUT is a data set for `derma train detector --data`: the pictures with their labels, which are empty. Look at OUT/crops
first, and delete the picture of anything that is a lesion after all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from derma_common.config import tile_px_of
from derma_common.errors import ConfigError
from derma_common.inference.detection import Detector
from derma_common.settings import DetectorSettings
from derma_common.shipped import model_dir
from derma_training.detector.mine import Collection, mine, open_skin


def main(arguments: list[str]) -> None:
    """Mine hard negatives."""
    parser = argparse.ArgumentParser(prog="derma data mine", description=__doc__)
    parser.add_argument("--model", default=DetectorSettings().model, help="a shipped name or a folder (%(default)s)")
    parser.add_argument("--pictures", type=Path, nargs="+", required=True, help="folders, COCO jsons, tables or videos")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--threshold", type=float, help="score above which a find is kept (the card's)")
    parser.add_argument("--tile", type=tile_px_of, default=0, help="look at tiles of this side in px too, or `auto`")
    parser.add_argument("--every", type=int, default=10, help="take each so many-th frame of a video (%(default)s)")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="of one inference (all cores)"
    )
    args = parser.parse_args(arguments)
    if args.every < 1:
        raise ConfigError("--every must be at least 1")

    detector = Detector.open(model_dir(args.model), args.threads)
    threshold = detector.card.score_threshold if args.threshold is None else args.threshold
    skins = [open_skin(place, args.every) for place in args.pictures]
    out = Collection(args.out)
    for place, skin in zip(args.pictures, skins, strict=True):
        mine(detector, skin.pictures, threshold, args.tile, out)
        without = f"; {skin.left_out} left out: they show lesions or doubtful spots" if skin.left_out else ""
        print(f"{place}: {out.looked_at} looked at and {len(out)} kept so far{without}", file=sys.stderr, flush=True)
    print(json.dumps(out.close(model=detector.card.id, threshold=threshold, tile=args.tile)))
