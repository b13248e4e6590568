"""How well unknown pictures are told from lesions of the known classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from derma_common.posterior_abstention import max_softmax, negative_energy
from derma_training.classifier.metrics_binary import auroc, curve

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

FOUND = 0.95  # of the unknown, where the false alarms among known lesions are counted


def unknown_scores(probabilities: Floats, unknown: int, known_logits: Sequence[Floats]) -> dict[str, Floats]:
    """Return name -> (N,) scores that are higher for what is less like a lesion of the known classes.

    probabilities: (N, C), unknown: the index of the class UNK. known_logits: of each network (N, K), without UNK: a
    network that learnt UNK is as sure of it as of any class, and only the others say how much a lesion is like one.
    """
    energies = [negative_energy(logits) for logits in known_logits]  # Liu et al. 2020
    return {
        "p_unk": probabilities[:, unknown],
        "max_softmax": -max_softmax(np.delete(probabilities, unknown, axis=1)),  # Hendrycks & Gimpel 2017
        "energy": -np.mean(energies, axis=0),
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
