"""Train, export and measure the lesion classifier.

    python -m derma_training.classifier pack --data DATA --pack PACK
    python -m derma_training.classifier train --pack PACK --run RUN --minutes 60
    python -m derma_training.classifier export --pack PACK --run RUN --model models/efficientnet-b0-skin
    python -m derma_training.classifier evaluate --pack PACK --model models/efficientnet-b0-skin

`train` continues the run that RUN holds. DATA is the folder of data folders, each with `labels.csv`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from derma_common.errors import DermaError, UserError
from derma_training.classifier.pack import open_pack, write_pack


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except DermaError as error:
        print(f"derma_training.classifier: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, UserError) else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m derma_training.classifier", description=(__doc__ or "").split("\n")[0]
    )
    commands = parser.add_subparsers(required=True)
    pack = commands.add_parser("pack", help="decode all pictures once")
    pack.add_argument("--data", type=Path, required=True)
    pack.set_defaults(command=_pack)
    train = commands.add_parser("train", help="train, or continue a run")
    train.add_argument("--minutes", type=float, default=60.0, help="wall-clock budget of the whole run")
    train.add_argument("--threads", type=int, default=2)
    train.set_defaults(command=_train)
    export = commands.add_parser("export", help="write the model directory: ONNX, temperature, card")
    export.add_argument("--size", type=int, help="px of the input, else the size of the training")
    export.set_defaults(command=_export)
    evaluate = commands.add_parser("evaluate", help="measure the exported model on the test part")
    evaluate.add_argument("--threads", type=int, default=2)
    evaluate.set_defaults(command=_evaluate)
    for command in (pack, train, export, evaluate):
        command.add_argument("--pack", type=Path, required=True)
    for command in (train, export):
        command.add_argument("--run", type=Path, required=True)
    for command in (export, evaluate):
        command.add_argument("--model", type=Path, required=True)
    train.add_argument("--warm-start", type=Path, help="folded MobileNetV2 (.npz) to start from, else from scratch")
    return parser


def _pack(options: argparse.Namespace) -> None:
    pack = write_pack(options.data, options.pack)
    print(f"{len(pack.items)} pictures packed into {options.pack}")


def _train(options: argparse.Namespace) -> None:
    from derma_training.classifier.train import Recipe, train

    recipe = Recipe(budget_s=options.minutes * 60.0, threads=options.threads)
    train(open_pack(options.pack), options.run, recipe, options.warm_start)


def _export(options: argparse.Namespace) -> None:
    from derma_training.classifier.export import export_model

    card = export_model(options.run, open_pack(options.pack), options.model, options.size)
    print(f"{options.model}: {card.id}, temperature {card.temperature}")


def _evaluate(options: argparse.Namespace) -> None:
    from derma_training.classifier.evaluate import evaluate_model

    print(json.dumps(evaluate_model(options.model, open_pack(options.pack), options.threads), indent=1))


if __name__ == "__main__":
    sys.exit(main())
