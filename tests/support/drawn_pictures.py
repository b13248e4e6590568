"""A manifest of small drawn pictures, for tests that train."""

from __future__ import annotations

from pathlib import Path

import cv2

from derma_training.classifier.manifest import Row, write_manifest
from derma_training.classifier.prepare.cleaning import fitted
from derma_training.classifier.prepare.distractors import draw


def drawn_manifest(
    folder: Path, classes: tuple[str, ...] = ("MEL", "NV", "UNK"), of_each: int = 6, licence: str = "CC0-1.0"
) -> Path:
    """Write pictures of 48 px and their manifest: fold 0 has two of each class, the others are in fold 1."""
    kinds, rows = ("skin", "cloth", "background", "hair", "plain"), []
    folder.mkdir(parents=True, exist_ok=True)
    for c, name in enumerate(classes):
        for i in range(of_each):
            file = folder / f"{name}-{i}.png"
            cv2.imwrite(str(file), fitted(draw(kinds[c % len(kinds)], (c, i)), 48))
            box = (0.2, 0.2, 0.8, 0.8) if i % 2 else None
            sex, site = ("female", "male")[i % 2], ("back", "arm", "")[i % 3]
            fold = "0" if i < 2 else "1"
            rows.append(
                Row(file, name, f"{name}-{i}", fold, licence, "drawn", box, 30.0 + i, sex, site, str(i % 6 + 1))
            )
    write_manifest(rows, folder / "manifest.csv")
    return folder / "manifest.csv"
