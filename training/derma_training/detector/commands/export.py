"""Export the averaged weights of a checkpoint as a model directory: another input size, batches, an early look.

OUT is what `derma train detector --out` was given. Thresholds and figures of a card in OUT hold for its own size only,
so the new card starts without them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from derma_common.errors import ConfigError
from derma_common.inference.card import CARD_FILE, read_card


def main(arguments: list[str]) -> None:
    """Export a checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m derma_training.detector export", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--size", type=int, help="side of the input, px, a multiple of 32 (default: the training's)")
    parser.add_argument("--max-batch", type=int, default=1, help="more than 1: any batch up to that")
    args = parser.parse_args(arguments)
    if (args.size is not None and (args.size < 96 or args.size % 32)) or args.max_batch < 1:
        raise ConfigError(
            "export wants a --size that is a multiple of 32, at least 96, and a --max-batch of at least 1"
        )
    from derma_training.detector import train as training
    from derma_training.detector.export import draft_card, export

    run = training.resume(args.out / training.CHECKPOINT, training.TrainSettings())
    _, height, width = run.averaged.config.input
    side_x, side_y = (args.size, args.size) if args.size else (width, height)
    known = (args.out / CARD_FILE).exists()
    licence = read_card(args.out).licence if known else "that of the pictures it was trained on"
    card = draft_card(args.model.name, run.averaged, side_x, side_y, run.classes, licence, max_batch=args.max_batch)
    card = export(run.averaged, args.model, card)
    print(json.dumps({"model": card.id, "images": run.images, **card.figures}))
