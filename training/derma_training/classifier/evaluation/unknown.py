"""How well unknown pictures are told from lesions of the known classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from derma_training.classifier.metrics_binary import auroc, curve

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

FOUND = 0.95  # of the unknown, where the false alarms among known lesions are counted


def unknown_scores(probabilities: Floats, unknown: int, energy: Floats) -> dict[str, Floats]:
    """Return name -> (N,) scores that are higher for what is less like a lesion of the known classes.

    probabilities: (N, C), unknown: the index of the class UNK, energy: (N,) T·logsumexp(logits / T).
    """
    known = np.delete(probabilities, unknown, axis=1)
    return {
        "p_unk": probabilities[:, unknown],
        "max_softmax": -known.max(axis=1),  # Hendrycks & Gimpel 2017
        "energy": -energy,  # Liu et al. 2020
    }


def unknown_figures(scores: Mapping[str, Floats], is_unknown: Mask) -> dict[str, Any]:
    """Return n and, for each score, the AUROC and the false alarms among known lesions when 95 % of the unknown
    are found; unknown pictures are the positives.
    """
    figures: dict[str, Any] = {"n": int(is_unknown.sum())}
    for name, values in scores.items():
        points = curve(values, is_unknown)
        at = int(np.searchsorted(points.sensitivity, FOUND, side="left"))
        figures[name] = {"auroc": auroc(values, is_unknown), "fall_out_at_95": float(points.fall_out[at])}
    return figures
