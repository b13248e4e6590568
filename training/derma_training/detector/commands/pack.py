"""`pack`: draw packs of scenes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from derma_training.detector import scenes, sources

PACK_SCENES = 120


def main(arguments: list[str]) -> None:
    """Draw packs of scenes."""
    parser = argparse.ArgumentParser(prog="python -m derma_training.detector pack", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--packs", type=int, default=30)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args(arguments)
    cutouts = sources.ham_cutouts(args.data, 2500) + sources.pad_cutouts(args.data)
    skins = [picture.image for picture in sources.normal_skin(args.data, "train")]
    for seed in range(args.first, args.first + args.packs):
        scenes.draw_pack(seed, PACK_SCENES, cutouts, skins, args.work / "packs")
        print(json.dumps({"pack": seed, "scenes": PACK_SCENES}), flush=True)
