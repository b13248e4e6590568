"""`export`: write the model directory of a run: ONNX, temperature, card."""

from __future__ import annotations

import argparse
from pathlib import Path

from derma_training.classifier.pack import open_pack


def main(arguments: list[str]) -> None:
    """Export a run."""
    parser = argparse.ArgumentParser(prog="python -m derma_training.classifier export", description=__doc__)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--size", type=int, help="px of the input, else the size of the training")
    options = parser.parse_args(arguments)
    from derma_training.classifier.export import export_model

    card = export_model(options.run, open_pack(options.pack), options.model, options.size)
    print(f"{options.model}: {card.id}, temperature {card.temperature}")
