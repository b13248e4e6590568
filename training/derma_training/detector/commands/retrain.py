"""Train the shipped detector: the data sets that derma_training.detector.sources names, and drawn scenes.

DATA is a folder with those data sets, SCENES what `derma data draw --crops --skins` made of their train parts, and
MINED what `derma data mine` kept of them. What `sources` calls tune and test is left alone. OUT becomes a model
directory; its card gets its threshold and figures from `figures OUT --choose --write`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from derma_training.detector.annotations import Annotated, read_annotations
from derma_training.detector.sources import SOURCES

if TYPE_CHECKING:
    from derma_training.detector.data import Data

# how often each is shown: dermoscopy must not dominate, the camera sees whole limbs
SHARES = {"ham10000": 0.22, "pad_ufes20": 0.24, "itobos": 0.12, "normal_skin": 0.04, "hand_video": 0.07}
SCENES_SHARE, MINED_SHARE = 0.26, 0.05
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
    "lesions under 5 px of the input were never trained: very wide pictures want tiling (itobos, itobos_tiled)",
    "figures on drawn scenes flatter: the training scenes come from the same code, with other seeds",
    "PAD-UFES-20: moles in the background are mostly unboxed, so precision there is a lower bound",
    "iToBoS: boxes drawn by eye, 9 of them held out on 4 tiles: one lesion is 11 % of recall",
    "skin of Fitzpatrick types V and VI was seen almost only as drawn skin",
)


def main(arguments: list[str]) -> None:
    """Train the shipped detector, or go on."""
    parser = argparse.ArgumentParser(prog="python -m derma_training.detector retrain", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=Path, action="append", required=True)
    parser.add_argument("--mined", type=Path)
    parser.add_argument("--weights", type=Path, help="the model to train on from")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--size", type=int, default=352)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    import torch

    from derma_training.detector.export import export
    from derma_training.detector.finish import card_of
    from derma_training.detector.session import open_run, train_to_end
    from derma_training.detector.train import TrainSettings

    torch.set_num_threads(args.threads)
    data = _data(args.data, args.scenes, args.mined)
    settings = TrainSettings(
        minutes=args.minutes, size=args.size, batch=12, peak_rate=args.rate, ema=0.998, seed=args.seed
    )
    run = open_run("yolov4-tiny", data, settings, args.out, weights=args.weights)
    train_to_end(run, data, settings, args.out)
    card = replace(card_of(run, args.out.name, LICENCE, data), training_data=TRAINING_DATA, notes=NOTES)
    print(json.dumps({"model": export(run.averaged, args.out, card).id, "images": run.images}))


def _data(folder: Path, scenes: list[Path], mined: Path | None) -> Data:
    """Read everything, each picture with its part, and every box as a lesion."""
    from derma_training.detector.data import LESION, Data, DataSet

    def lesions(pictures: Iterable[Annotated], part: str) -> list[Annotated]:
        return [replace(p, classes=np.zeros(len(p.boxes), np.int64), split=part) for p in pictures]

    sets = []
    for name, share in SHARES.items():
        parts = [lesions(SOURCES[name](folder, part), part) for part in ("train", "tune", "test")]
        sets.append(DataSet(tuple(picture for part in parts for picture in part), share))
    for place in scenes:
        sets.append(DataSet(tuple(lesions(read_annotations(place).pictures, "train")), SCENES_SHARE / len(scenes)))
    if mined is not None:
        sets.append(DataSet(tuple(lesions(read_annotations(mined).pictures, "train")), MINED_SHARE))
    return Data(tuple(sets), (LESION,), ())
