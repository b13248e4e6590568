"""Train a YOLOv4 detector on annotated pictures; the same command again goes on where a killed one was.

Each --data is a folder (YOLO txt, COCO, Pascal VOC or a CSV), a COCO .json or a labels.csv; folders of pictures without
lesions belong there too. DIR=SHARE says how often it is shown against the others. OUT becomes a model directory:
model.onnx and card.json, with the checkpoint, log.jsonl and plots beside them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from derma_common.errors import ConfigError, ResourceError

if TYPE_CHECKING:
    from derma_training.detector.train import TrainSettings

DEFAULT_EPOCHS = 100
LICENCE = "that of the pictures it was trained on: ask who made them"


def main(arguments: list[str]) -> None:
    """Train, or go on; ends with a model directory."""
    args = _parse(arguments)
    import torch

    from derma_training.detector.data import read_data
    from derma_training.detector.finish import finish
    from derma_training.detector.session import open_run, train_to_end
    from derma_training.device import device_of

    if args.threads:
        torch.set_num_threads(args.threads)
    device = device_of(args.device)
    data = read_data(args.data, args.keep_classes)
    for line in data.report:
        print(line, file=sys.stderr)
    settings = _settings(args, len(data.part("train").pictures))
    run = open_run(args.network, data, settings, args.out, device, args.weights)
    try:
        train_to_end(run, data, settings, args.out)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on after the last whole epoch", file=sys.stderr)
        raise SystemExit(130) from None
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"the GPU's memory does not hold --batch {args.batch} at --size {args.size} and a little more: the same "
            "command goes on with a smaller --batch"
        ) from error
    card = finish(run, data, args.out, args.licence)
    held_out = {"model": card.id, "threshold": card.score_threshold, "held_out": card.figures["held_out"]}
    print(json.dumps(held_out), flush=True)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="derma train detector", description=__doc__)
    parser.add_argument("--data", action="append", required=True, metavar="DIR[=SHARE]")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", default="yolov4-tiny", help="yolov4-tiny, yolov4 or a Darknet .cfg file")
    parser.add_argument("--weights", type=Path, help="start from .weights, .conv.29, .conv.137 or an exported .onnx")
    parser.add_argument("--size", type=int, default=416, help="side of the network's input, px, a multiple of 32")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--epochs", type=int, help=f"times each picture is shown (default {DEFAULT_EPOCHS})")
    budget.add_argument("--minutes", type=float, help="time to train, instead of epochs")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument("--schedule", choices=("cosine", "steps"), default="cosine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="of the network on the CPU (default: torch's choice)")
    parser.add_argument("--workers", type=int, default=2, help="threads that make training pictures")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: cuda if there is one")
    parser.add_argument("--keep-classes", action="store_true", help="tell the data's classes apart, not lesions alone")
    parser.add_argument("--licence", default=LICENCE, help="licence of the weights, for the card")
    args = parser.parse_args(arguments)
    positive = {name: getattr(args, name) for name in ("epochs", "minutes", "batch", "rate", "threads", "workers")}
    for name, value in positive.items():
        if value is not None and not value > 0:
            raise ConfigError(f"--{name} {value}: must be positive")
    if args.size < 96 or args.size % 32:
        raise ConfigError(f"--size {args.size}: must be a multiple of 32, at least 96")
    return args


def _settings(args: argparse.Namespace, pictures: int) -> TrainSettings:
    from derma_training.detector.train import TrainSettings

    epochs = None if args.minutes else args.epochs or DEFAULT_EPOCHS
    settings = TrainSettings(
        epochs=epochs,
        minutes=args.minutes,
        size=args.size,
        batch=args.batch,
        peak_rate=args.rate,
        schedule=args.schedule,
        # in epochs every picture counts once; against a clock an epoch is what a log line and a checkpoint are worth
        epoch_images=pictures if epochs else min(pictures, 800),
        seed=args.seed,
        workers=args.workers,
    )
    own_cfg = args.network.endswith(".cfg")  # which then says how its boxes are weighed and assigned
    return replace(settings, iou_normalizer=None, iou_thresh=None) if own_cfg else settings
