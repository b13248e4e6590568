"""`pack`: decode all pictures of a data folder once."""

from __future__ import annotations

import argparse
from pathlib import Path

from derma_training.classifier.pack import write_pack


def main(arguments: list[str]) -> None:
    """Write a pack."""
    parser = argparse.ArgumentParser(prog="python -m derma_training.classifier pack", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of data folders, each with labels.csv")
    parser.add_argument("--pack", type=Path, required=True)
    options = parser.parse_args(arguments)
    pack = write_pack(options.data, options.pack)
    print(f"{len(pack.items)} pictures packed into {options.pack}")
