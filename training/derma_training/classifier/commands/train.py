"""`train`: train, or continue the run that the run folder holds."""

from __future__ import annotations

import argparse
from pathlib import Path

from derma_training.classifier.pack import open_pack


def main(arguments: list[str]) -> None:
    """Train a classifier."""
    parser = argparse.ArgumentParser(prog="derma train classifier", description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0, help="wall-clock budget of the whole run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warm-start", type=Path, help="folded MobileNetV2 (.npz) to start from, else from scratch")
    options = parser.parse_args(arguments)
    from derma_training.classifier.train import Recipe, train

    recipe = Recipe(budget_s=options.minutes * 60.0, threads=options.threads)
    train(open_pack(options.pack), options.run, recipe, options.warm_start)
