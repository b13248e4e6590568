"""The columns of Table II equal those of the official scorer, isic-challenge-scoring 5.6.0.

The scorer needs older packages than derma, so it runs in an environment of its own (support/isic.py).
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.isic import PYTHON, needs_scorer

from derma_training.classifier.metrics import balanced_accuracy
from derma_training.classifier.metrics_binary import COLUMNS, class_table

SCORER = Path(__file__).parents[1] / "support" / "isic_scorer.py"


def cases() -> dict[str, np.ndarray]:
    """Draw predictions: sharp and flat, with ties, with undecided rows, with classes that do not occur."""
    rng = np.random.default_rng(7)
    drawn: dict[str, np.ndarray] = {}
    for number, (n, classes, sharpness, steps, occurring) in enumerate(
        [
            (700, 9, 0.3, 0, 9),
            (700, 9, 3.0, 0, 9),  # no probability above 0.5: nothing is called
            (400, 9, 0.3, 20, 9),  # rounded: ties within columns and rows
            (150, 5, 1.0, 4, 5),
            (300, 9, 0.3, 0, 6),  # three classes are empty
            (60, 4, 0.5, 10, 1),  # all pictures are of one class
            (12, 3, 1.0, 2, 3),
        ]
    ):
        probabilities = rng.dirichlet(np.full(classes, sharpness), n)
        drawn[f"{number}_probabilities"] = np.round(probabilities * steps) / steps if steps else probabilities
        drawn[f"{number}_truth"] = np.where(
            rng.random(n) < 0.5, probabilities.argmax(axis=1) % occurring, rng.integers(0, occurring, n)
        )
    return drawn


def run(arguments: list[str]) -> str:
    done = subprocess.run([str(PYTHON), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_scorer
def test_every_column_and_the_balanced_accuracy_equal_the_official_scorers(tmp_path: Path) -> None:
    drawn = cases()
    np.savez(tmp_path / "cases.npz", **drawn)
    official = json.loads(run([str(SCORER), str(tmp_path / "cases.npz")]))
    assert len(official) == len(drawn) // 2
    refused = 0
    for name, wanted in official.items():
        truth, probabilities = drawn[f"{name}_truth"], drawn[f"{name}_probabilities"]
        assert balanced_accuracy(probabilities, truth) == pytest.approx(wanted["bma"], abs=1e-12)
        table = class_table(probabilities, truth)
        for c, columns in enumerate(wanted["classes"]):
            for column in COLUMNS:
                if columns[column] is None:
                    refused += 1
                    assert np.isnan(table[column][c])
                else:
                    assert table[column][c] == pytest.approx(columns[column], abs=1e-12), (name, c, column)
    assert refused == 2 * (3 + 4)  # both areas of three empty classes; of all four where one class is everything
