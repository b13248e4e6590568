"""Run under the Python that has isic-challenge-scoring: score predictions, one JSON document out.

    python isic_scorer.py CASES.npz

For each case NAME the file holds NAME_truth (N,) class indices and NAME_probabilities (N, C). A figure that the
scorer refuses, or has no number for, is null.
"""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np
import pandas as pd
from isic_challenge_scoring import metrics
from isic_challenge_scoring.confusion import create_binary_confusion_matrix

SHARES = ("accuracy", "sensitivity", "specificity", "dice", "ppv", "npv")


def figure(function, *arguments):
    try:
        value = float(function(*arguments))
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def category(truth, probabilities, weights):
    matrix = create_binary_confusion_matrix(
        truth.gt(0.5).to_numpy(), probabilities.gt(0.5).to_numpy(), weights.to_numpy()
    )
    columns = {name: figure(getattr(metrics, f"binary_{name}"), matrix) for name in SHARES}
    columns["auc"] = figure(metrics.auc, truth, probabilities, weights)
    columns["auc80"] = figure(metrics.auc_above_sensitivity, truth, probabilities, weights, 0.8)
    columns["ap"] = figure(metrics.average_precision, truth, probabilities, weights)
    return columns


def case(truth, probabilities):
    names = [f"class {c}" for c in range(probabilities.shape[1])]
    predicted = pd.DataFrame(probabilities, columns=names)
    wanted = pd.DataFrame(np.eye(len(names))[truth], columns=names)
    weights = pd.Series(np.ones(len(truth)))
    return {
        "bma": figure(metrics.balanced_multiclass_accuracy, wanted, predicted, weights),
        "classes": [category(wanted[c], predicted[c], weights) for c in names],
    }


warnings.simplefilter("ignore")
cases = np.load(sys.argv[1])
names = sorted(key.removesuffix("_truth") for key in cases.files if key.endswith("_truth"))
print(json.dumps({name: case(cases[f"{name}_truth"], cases[f"{name}_probabilities"]) for name in names}))
