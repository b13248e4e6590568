"""Figures of an exported classifier, measured through the runner that the service uses.

Only the test part is used: no training, no choice of checkpoint and no temperature has seen it.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from derma_common.inference.card import read_card, write_card
from derma_common.inference.classification import Classifier
from derma_training.classifier.augment import evaluation_crop
from derma_training.classifier.manifest import CLASSES
from derma_training.classifier.metrics import (
    accuracy,
    auroc,
    balanced_accuracy,
    bootstrap_interval,
    calibration_error,
    macro_auc,
    sensitivities,
)
from derma_training.classifier.pack import Pack
from derma_training.classifier.unknowns import HELD_OUT_KINDS

Probabilities = npt.NDArray[np.float32]
MALIGNANT = ("MEL", "BCC", "SCC")
UNK = CLASSES.index("UNK")
INTERVALS = {"accuracy": accuracy, "bma": balanced_accuracy, "macro_auc": macro_auc}
COMMAND = "python -m derma_training.classifier evaluate --pack PACK --model MODEL"


def probabilities_of(classifier: Classifier, pack: Pack, indices: list[int], boxed: bool) -> Probabilities:
    """Return calibrated probabilities (N, C) of packed pictures, cut as the pipeline does if `boxed`."""
    size = classifier.card.input.width
    crops = [evaluation_crop(np.asarray(pack.images[i]), pack.items[i].box, size, boxed) for i in indices]
    return classifier.classify(crops)


def lesion_figures(probabilities: Probabilities, truth: npt.NDArray[np.int64], groups: Sequence[str]) -> dict[str, Any]:
    """Return the figures of one set of lesions; UNK may be answered, wrongly. groups: lesion or patient ids."""
    malignant = [CLASSES.index(name) for name in MALIGNANT]
    return _rounded(
        {
            "n": len(truth),
            "accuracy": accuracy(probabilities, truth),
            "bma": balanced_accuracy(probabilities, truth),
            "macro_auc": macro_auc(probabilities, truth),
            "malignant_auc": auroc(probabilities[:, malignant].sum(axis=1), np.isin(truth, malignant)),
            "ece": calibration_error(probabilities, truth),
            "sensitivity": {CLASSES[c]: share for c, share in sensitivities(probabilities, truth).items()},
            "n_of_class": {CLASSES[c]: int((truth == c).sum()) for c in np.unique(truth)},
            "called_unk": (probabilities.argmax(axis=1) == UNK).mean(),
            "interval_95": {
                name: [round(v, 4) for v in bootstrap_interval(figure, probabilities, truth, groups)]
                for name, figure in INTERVALS.items()
            },
        }
    )


def unknown_figures(unknown: dict[str, Probabilities], lesions: Probabilities) -> dict[str, Any]:
    """Return, for each kind of unknown, the AUROC of P(UNK) against all lesions and the share called UNK."""
    figures = {}
    for kind, found in unknown.items():
        scores = np.concatenate([found[:, UNK], lesions[:, UNK]])
        positive = np.arange(len(scores)) < len(found)
        figures[kind] = {
            "n": len(found),
            "auroc": auroc(scores, positive),
            "called_unk": (found.argmax(axis=1) == UNK).mean(),
            "kind_in_training": kind not in HELD_OUT_KINDS,
        }
    return _rounded(figures)


def measure(classifier: Classifier, pack: Pack) -> dict[str, Any]:
    """Return all figures of the test part."""
    figures: dict[str, Any] = {}
    lesions = []
    for name, domain, boxed in (
        ("HAM10000 val, whole 224 px picture", "dermoscopy", False),
        ("HAM10000 val, crop around the lesion box as in the pipeline", "dermoscopy", True),
        ("PAD-UFES-20 val, phone, crop around the lesion box", "phone", True),
    ):
        indices = pack.where("test", domain)
        truth = np.asarray([CLASSES.index(pack.items[i].label) for i in indices], dtype=np.int64)
        probabilities = probabilities_of(classifier, pack, indices, boxed)
        figures[name] = lesion_figures(probabilities, truth, [pack.items[i].group for i in indices])
        if boxed:
            lesions.append(probabilities)
    kinds = sorted({pack.items[i].domain for i in pack.where("test") if pack.items[i].label == "UNK"})
    unknown = {kind: probabilities_of(classifier, pack, pack.where("test", kind), boxed=False) for kind in kinds}
    figures["UNK against all boxed lesions above"] = unknown_figures(unknown, np.concatenate(lesions))
    return figures


def evaluate_model(directory: Path, pack: Pack, threads: int = 2) -> dict[str, Any]:
    """Measure the model in `directory` and write the figures on its card. Raises ModelError."""
    classifier = Classifier.open(directory, threads)
    figures = measure(classifier, pack)
    classifier.close()
    card = read_card(directory)
    how = {"command": COMMAND, "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
    write_card(replace(card, figures={**card.figures, **figures, "measured": how}), directory)
    return figures


def _rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: _rounded_value(value) for name, value in figures.items()}


def _rounded_value(value: Any) -> Any:
    if isinstance(value, dict):
        return _rounded(value)
    return round(float(value), 4) if isinstance(value, float | np.floating) else value
