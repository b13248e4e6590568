"""Painted pictures and a network that reads their colour: an evaluation whose figures are known beforehand."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from derma_training.classifier.evaluation.models import Network

CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
SIZE_PX = 32
STEP = 25  # of grey from one class to the next


def paint(folder: Path, name: str, shown: int, width: int = 60, height: int = 40) -> None:
    """Write a picture that a grey network takes for class number `shown`."""
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / name), np.full((height, width, 3), shown * STEP, dtype=np.uint8))


def paint_table(folder: Path, shown: Sequence[str], rows: Sequence[dict[str, str]]) -> Path:
    """Paint a picture of each class in `shown` and write a table that says of it what `rows` says."""
    named = [{"file": f"p{n:03}.png", **row} for n, row in enumerate(rows)]
    for name, row in zip(shown, named, strict=True):
        paint(folder, row["file"], CLASSES.index(name))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(named[0]))
        table.writeheader()
        table.writerows(named)
    return folder / "labels.csv"


def grey_network(
    classes: tuple[str, ...] = CLASSES, name: str = "grey", sharpness: float = 40.0, **more: Any
) -> Network:
    """Return a network that answers the class number mean grey / STEP; its features are the mean colours."""

    def run(tensor: np.ndarray) -> dict[str, np.ndarray]:
        colours = tensor.mean(axis=(2, 3)) * 255.0
        distance = colours.mean(axis=1)[:, None] / STEP - np.arange(len(classes))
        return {"logits": (-sharpness * distance**2).astype(np.float32), "features": colours.astype(np.float32)}

    return Network(
        id=name, classes=classes, size_px=SIZE_PX, mean=(0.0,) * 3, std=(1.0,) * 3, batch=5, run=run,
        close=lambda: None, **more,
    )  # fmt: skip
