"""Train, export and evaluate the lesion detector.

    python -m derma_training.detector pack DATA WORK --packs 30
    python -m derma_training.detector train DATA WORK --minutes 60
    python -m derma_training.detector export WORK MODEL_DIR
    python -m derma_training.detector evaluate DATA MODEL_DIR --choose --write

DATA is a folder of data sets (see `detector_sources`), WORK holds packs, checkpoint and log.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from derma_common.errors import DermaError, SourceError
from derma_common.inference.card import write_card
from derma_common.inference.detection import Detector
from derma_training.detector import scenes as detector_scenes
from derma_training.detector import sources as detector_sources
from derma_training.detector import train as detector_train
from derma_training.detector.data import Pools
from derma_training.detector.sources import Picture
from derma_training.detector.train import TrainSettings

HAM_PICTURES = 2500  # dermoscopy must not dominate: the camera sees whole limbs
PACK_SCENES = 120
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


def pack(args: argparse.Namespace) -> None:
    """Draw packs of scenes."""
    cutouts = detector_sources.ham_cutouts(args.data, 2500) + detector_sources.pad_cutouts(args.data)
    skins = [picture.image for picture in detector_sources.normal_skin(args.data, "train")]
    for seed in range(args.first, args.first + args.packs):
        detector_scenes.draw_pack(seed, PACK_SCENES, cutouts, skins, args.work / "packs")
        print(json.dumps({"pack": seed, "scenes": PACK_SCENES}), flush=True)


def real_pools(data: Path) -> dict[str, list[Picture]]:
    """Read the train split of every real source."""
    pools = {}
    for name, source in detector_sources.SOURCES.items():
        limit = HAM_PICTURES if name == "ham10000" else None
        pools[name] = list(itertools.islice(source(data, "train"), limit))
    return pools


def packed(work: Path) -> dict[str, list[Picture]]:
    """Open all packs of scenes in `work`."""
    pools: dict[str, list[Picture]] = {}
    for file in sorted((work / "packs").glob("scenes-*.npy")):
        for picture in detector_scenes.read_pack(file):
            pools.setdefault(picture.source, []).append(picture)
    if not pools:
        raise SourceError(f"{work / 'packs'} holds no packs; make some with `pack` first")
    return pools


def train(args: argparse.Namespace) -> None:
    """Train from scratch, or go on where the checkpoint is."""
    torch.set_num_threads(args.threads)
    settings = TrainSettings(minutes=args.minutes, size=args.size, seed=args.seed)
    real = real_pools(args.data)

    def pools() -> Pools:
        return {**real, **packed(args.work)}

    if (args.work / detector_train.CHECKPOINT).exists():
        run = detector_train.resume(args.work, settings)
    else:
        run = detector_train.start(detector_train.choose_anchors(pools(), args.size, args.seed), settings)
    counts = {name: len(pool) for name, pool in pools().items()}
    print(json.dumps({"pictures": counts, "anchors": run.anchors, "step": run.step}), flush=True)
    detector_train.train(run, pools, settings, args.work)


def export(args: argparse.Namespace) -> None:
    """Export the averaged weights of the checkpoint."""
    from derma_training.detector.export import draft_card
    from derma_training.detector.export import export as write

    run = detector_train.resume(args.work, TrainSettings(minutes=0))
    card = draft_card(args.model.name, args.size, ("lesion",), LICENCE)
    card = replace(card, training_data=TRAINING_DATA, score_threshold=args.threshold, notes=NOTES)
    card = write(run.averaged, run.anchors, args.size, args.model, card)
    print(json.dumps({"model": card.id, "images": run.images, **card.figures}))


def evaluate(args: argparse.Namespace) -> None:
    """Measure a model on what is held out; with --choose first set its threshold on the tune split."""
    from derma_training.detector import evaluate as measure

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


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="python -m derma_training.detector", description=__doc__.splitlines()[0])
    verbs = top.add_subparsers(required=True, metavar="VERB")
    one = verbs.add_parser("pack", help=pack.__doc__)
    one.add_argument("data", type=Path)
    one.add_argument("work", type=Path)
    one.add_argument("--packs", type=int, default=30)
    one.add_argument("--first", type=int, default=0)
    one.set_defaults(run=pack)
    one = verbs.add_parser("train", help=train.__doc__)
    one.add_argument("data", type=Path)
    one.add_argument("work", type=Path)
    one.add_argument("--minutes", type=float, required=True)
    one.add_argument("--size", type=int, default=416)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--threads", type=int, default=2)
    one.set_defaults(run=train)
    one = verbs.add_parser("export", help=export.__doc__)
    one.add_argument("work", type=Path)
    one.add_argument("model", type=Path)
    one.add_argument("--size", type=int, default=352)
    one.add_argument("--threshold", type=float, default=0.25)
    one.set_defaults(run=export)
    one = verbs.add_parser("evaluate", help=evaluate.__doc__)
    one.add_argument("data", type=Path)
    one.add_argument("model", type=Path)
    one.add_argument("--sample", type=Path, default=Path("samples/drawn-exam.mp4"))
    one.add_argument("--threads", type=int, default=1)
    one.add_argument("--choose", action="store_true")
    one.add_argument("--write", action="store_true", help="write threshold and figures into the card")
    one.set_defaults(run=evaluate)
    return top


def main() -> int:
    """Run one command; an error a person can mend is one line."""
    args = parser().parse_args()
    try:
        args.run(args)
    except DermaError as error:
        print(f"error: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
