"""`export`: write the averaged weights of a checkpoint as a model directory."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

LICENCE = "CC BY-NC 4.0 (trained on BY-NC data): non-commercial research"
TRAINING_DATA = (
    "HAM10000 (Tschandl et al. 2018), lesion-grouped train split, CC BY-NC 4.0",
    "PAD-UFES-20 (Pacheco et al. 2020), patient-grouped train split, CC BY 4.0",
    "iToBoS 2024 wide-field tiles, 5 of 9, CC BY-SA 4.0, boxes drawn by eye",
    "healthy forearm sweep (S. Yadav 2024), first half, MIT",
    "hand video (T. Batpurev 2021), first two thirds, MIT",
    "skin scenes drawn by derma_common.drawn, with drawn and with pasted real lesions of the above train splits",
)
NOTES = (
    "research; not a medical device: a box says where to look, not what is there",
    "lesions under 5 px of the 352 px input were never trained: very wide pictures want tiling (itobos, itobos_tiled)",
    "figures on drawn scenes flatter: the training scenes come from the same code, with other seeds",
    "PAD-UFES-20: moles in the background are mostly unboxed, so precision there is a lower bound",
    "iToBoS: boxes drawn by eye, 9 of them held out on 4 tiles: one lesion is 11 % of recall",
    "skin of Fitzpatrick types V and VI was seen almost only as drawn skin",
    "trained from scratch in 72 minutes on shared CPU cores: 31,950 pictures; shares and sizes changed on the way",
    "close-ups that fill the picture are its weak side; the input of 352 px was chosen on the tune split",
    "itobos_tiled: 36 overlapping tiles of 416 px from the same 4 pictures, so its 9 lesions count 14 times",
    "the sample video was looked at while training was steered: it shows that the demo works, it is not held out",
)


def main(arguments: list[str]) -> None:
    """Export a run."""
    parser = argparse.ArgumentParser(prog="python -m derma_training.detector export", description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--size", type=int, default=352)
    parser.add_argument("--threshold", type=float, default=0.25)
    args = parser.parse_args(arguments)
    from derma_training.detector import train as training
    from derma_training.detector.export import draft_card
    from derma_training.detector.export import export as write

    run = training.resume(args.work, training.TrainSettings(minutes=0))
    card = draft_card(args.model.name, args.size, ("lesion",), LICENCE)
    card = replace(card, training_data=TRAINING_DATA, score_threshold=args.threshold, notes=NOTES)
    card = write(run.averaged, run.anchors, args.size, args.model, card)
    print(json.dumps({"model": card.id, "images": run.images, **card.figures}))
