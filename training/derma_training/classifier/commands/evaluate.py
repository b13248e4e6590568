"""`evaluate`: measure an exported model on the test part of a pack."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from derma_training.classifier.pack import open_pack


def main(arguments: list[str]) -> None:
    """Measure a classifier."""
    parser = argparse.ArgumentParser(prog="derma evaluate classifier", description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    from derma_training.classifier.evaluate import evaluate_model

    print(json.dumps(evaluate_model(options.model, open_pack(options.pack), options.threads), indent=1))
