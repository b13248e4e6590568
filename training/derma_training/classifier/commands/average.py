"""`average`: mix the weights of a training run with those of an exported model that it started from, and export that.

    python -m derma_training.classifier average RUN MODEL --share 0.3 --manifest manifest.csv --out models/mine

0.3 of MODEL, 0.7 of RUN. The figures printed are those of the fold that the run held back: choose the share by them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from derma_common.errors import ConfigError
from derma_common.inference.card import write_card
from derma_common.shipped import model_dir
from derma_training.classifier.manifest import read_manifest


def main(arguments: list[str]) -> None:
    """Average and export. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog="derma_training.classifier average",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("model", help="name or folder of an exported model")
    parser.add_argument("--share", type=float, default=0.5, help="of the model's weights (default 0.5)")
    parser.add_argument("--manifest", type=Path, required=True, metavar="CSV", help="that the run was trained on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new model; its name becomes the model's")
    options = parser.parse_args(arguments)
    if not 0.0 <= options.share <= 1.0:
        raise ConfigError(f"--share {options.share:g} is no share from 0 to 1")
    manifest, directory = read_manifest(options.manifest), model_dir(options.model)
    from derma_training.torchvision_ops import complete_torchvision

    complete_torchvision()
    from derma_training.classifier.averaging import averaged
    from derma_training.classifier.export import export_network, name_of
    from derma_training.classifier.trained import load_trained

    card = export_network(averaged(load_trained(options.run), directory, options.share), manifest, options.out)
    note = f"weights: {1 - options.share:g} of the run {options.run.name}, {options.share:g} of {name_of(directory)}"
    write_card(replace(card, notes=(*card.notes, note)), options.out)
    print(json.dumps({"model": str(options.out), "id": card.id, "calibration": card.figures["calibration part"]}))
