"""Every architecture of the papers, once around: build, take steps, export, compare with PyTorch, run in the pipeline.

    python bench/architectures.py [--only NAME …] [--json]

Needs the extra `train`. Each network is trained for two steps of two drawn pictures at its own input size, by
`derma train classifier` itself, in a process of its own; NASNet-A-Large takes about 5 GB of memory. What is checked:
the largest difference between PyTorch and ONNX Runtime, in parts of the largest output (promise: 1e-4), and that
`Classifier`, which the service uses, opens the directory and gives probabilities. The weights are random: nothing
here says how well a network classifies.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from derma_common.inference.card import read_card
from derma_common.inference.classification import Classifier
from derma_training.classifier.architectures import ARCHITECTURES
from derma_training.classifier.manifest import Row, write_manifest
from derma_training.classifier.prepare.distractors import draw

PARITY = 1e-4
COLUMNS = ("px", "million parameters", "parity", "seconds a step", "ms a crop", "MB")


def drawn_manifest(folder: Path) -> Path:
    """Draw four pictures to learn from and two to calibrate with; return their manifest."""
    rows = []
    for i in range(6):
        label = ("skin", "cloth")[i % 2]
        file = folder / f"{label}-{i}.png"
        cv2.imwrite(str(file), draw(label, (i,)))
        rows.append(Row(file, label, str(i), "0" if i < 2 else "1", "CC0-1.0", "drawn"))
    write_manifest(rows, folder / "manifest.csv")
    return folder / "manifest.csv"


def around(architecture: str, folder: Path, manifest: Path) -> dict[str, float]:
    """Train, export and run one architecture; return its figures. Raises CalledProcessError when training fails."""
    out = folder / architecture
    words = f"--manifest {manifest} --out {out} --architecture {architecture} --epochs 1 --batch 2 --device cpu"
    command = [sys.executable, "-m", "derma_training.classifier", "train", *words.split()]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    log = json.loads((out / "log.jsonl").read_text(encoding="utf-8"))
    card = read_card(out / "model")
    classifier = Classifier.open(out / "model", threads=2)
    crop = np.full((300, 300, 3), 128, np.uint8)
    probabilities = classifier.classify([crop] * 3)
    started = time.monotonic()
    for _ in range(3):
        classifier.classify([crop])
    each_ms = (time.monotonic() - started) / 3 * 1e3
    classifier.close()
    assert probabilities.shape == (3, 2) and np.allclose(probabilities.sum(axis=1), 1.0)
    size_mb = (out / "model" / card.file).stat().st_size / 1e6
    return {
        "px": card.input.width,
        "million parameters": round(size_mb / 4, 1),
        "parity": card.figures["parity_with_pytorch"],
        "seconds a step": round(2.0 / log["images_per_s"], 1),
        "ms a crop": round(each_ms, 1),
        "MB": round(size_mb, 1),
    }


def main() -> int:
    """Print the table, or JSON; the status says whether the promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as place:
        manifest = drawn_manifest(Path(place))
        for name in options.only:
            found[name] = around(name, Path(place), manifest)
            print(f"{name}: {found[name]}", file=sys.stderr)
    kept = all(figures["parity"] <= PARITY for figures in found.values())
    if options.json:
        print(json.dumps({"architectures": found, "promise_kept": kept}))
    else:
        print(f"{'':<28}" + "".join(f"{column:>20}" for column in COLUMNS))
        for name, figures in found.items():
            print(f"{name:<28}" + "".join(f"{figures[column]:>20}" for column in COLUMNS))
        print(f"promise: parity ≤ {PARITY}: {'kept' if kept else 'MISSED'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
