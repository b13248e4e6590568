"""All figures of a set of predictions as one JSON document: overall, per class, per group, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from derma_training.classifier.metrics import (
    Truth,
    accuracy,
    balanced_accuracy,
    calibration_error,
    confusion,
    decisions,
    macro_auc,
)
from derma_training.classifier.metrics_binary import COLUMNS, auroc, class_table
from derma_training.classifier.metrics_bootstrap import bootstrap_intervals

Floats = npt.NDArray[np.float64]

UNDEFINED_WITHOUT_POSITIVES = ("auc", "auc80", "ap", "sensitivity", "dice")
DIGITS = 4
SUSPICIOUS = "suspicious"  # all malignant or premalignant classes together


@dataclass(frozen=True)
class Scored:
    """Predictions to be judged: probabilities (N, C) float64 of `classes`, truth (N,) indices, N independent groups.

    suspicious: the classes that are malignant or premalignant.
    """

    classes: tuple[str, ...]
    probabilities: Floats
    truth: Truth
    groups: tuple[str, ...]
    suspicious: tuple[str, ...] = ()

    def of(self, chosen: npt.NDArray[np.bool_]) -> Scored:
        """Return the rows where `chosen` (N,) holds."""
        groups = tuple(g for g, keep in zip(self.groups, chosen, strict=True) if keep)
        return Scored(self.classes, self.probabilities[chosen], self.truth[chosen], groups, self.suspicious)

    @property
    def suspicious_score(self) -> Floats:
        """The summed probability (N,) of the suspicious classes."""
        return np.asarray(self.probabilities[:, self._suspicious].sum(axis=1))

    @property
    def is_suspicious(self) -> npt.NDArray[np.bool_]:
        """Which pictures (N,) are of a suspicious class."""
        return np.isin(self.truth, self._suspicious)

    def targets(self) -> list[str]:
        """Return what can be told from the rest in these pictures: SUSPICIOUS if both sides occur, and such classes."""
        found = [name for c, name in enumerate(self.classes) if _both(self.truth == c)]
        return [SUSPICIOUS, *found] if _both(self.is_suspicious) else found

    def scores_of(self, target: str) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Return scores (N,) for one of `targets`, and which pictures (N,) are of it."""
        if target == SUSPICIOUS:
            return self.suspicious_score, self.is_suspicious
        c = self.classes.index(target)
        return self.probabilities[:, c], self.truth == c

    @property
    def _suspicious(self) -> list[int]:
        return [self.classes.index(name) for name in self.suspicious]


def all_figures(scored: Scored, draws: int) -> dict[str, Any]:
    """Return accuracy, bma, macro_auc, ece, classes, means, confusion and 95 % intervals of `draws` bootstraps.

    A class that does not occur counts in no mean; what has no value is not a number.
    """
    table = class_table(scored.probabilities, scored.truth)
    occurs = np.bincount(scored.truth, minlength=len(scored.classes)) > 0
    document: dict[str, Any] = {
        "n": len(scored.truth),
        "groups": len(set(scored.groups)),
        **headline(scored),
        "classes": {name: _one_class(scored, table, c) for c, name in enumerate(scored.classes)},
        "mean": {name: float(np.mean(table[name][occurs])) for name in COLUMNS},
        "confusion": {
            "truth": list(scored.classes),
            "answers": [*scored.classes, "undecided"],
            "counts": confusion(scored.probabilities, scored.truth).tolist(),
        },
    }
    if SUSPICIOUS in scored.targets():
        document[SUSPICIOUS] = {"classes": list(scored.suspicious), "auc": auroc(*scored.scores_of(SUSPICIOUS))}
    if draws:
        document["interval_95"] = _intervals(scored, draws)
    return document


def _both(positive: npt.NDArray[np.bool_]) -> bool:
    return bool(positive.any() and not positive.all())


def headline(scored: Scored) -> dict[str, float]:
    """Return accuracy, bma, macro_auc and ece."""
    pair = scored.probabilities, scored.truth
    return {
        "accuracy": accuracy(*pair),
        "bma": balanced_accuracy(*pair),
        "macro_auc": macro_auc(*pair),
        "ece": calibration_error(*pair),
    }


def _one_class(scored: Scored, table: Mapping[str, Floats], c: int) -> dict[str, Any]:
    """Return n, called (how often it is the answer), recall of the answers, and COLUMNS of class c."""
    answers, positive = decisions(scored.probabilities), scored.truth == c
    n = int(positive.sum())
    columns = {name: float(table[name][c]) for name in COLUMNS}
    if not n:
        columns |= dict.fromkeys(UNDEFINED_WITHOUT_POSITIVES, math.nan)
    recall = float((answers[positive] == c).mean()) if n else math.nan
    return {"n": n, "called": int((answers == c).sum()), "recall": recall, **columns}


def _intervals(scored: Scored, draws: int) -> dict[str, Any]:
    """Return name -> [low, high] for the headline, the suspicious AUC, and AUC and recall of each class that occurs.

    Not for ece: drawing with replacement makes it larger than it is.
    """
    occurring = [int(c) for c in np.unique(scored.truth)]

    def figures(probabilities: npt.NDArray[Any], truth: Truth) -> list[float]:
        drawn = Scored(scored.classes, probabilities, truth, (), scored.suspicious)
        right = decisions(probabilities) == truth
        areas = [auroc(probabilities[:, c], truth == c) for c in occurring]
        recalls = [float(right[truth == c].mean()) if (truth == c).any() else math.nan for c in occurring]
        suspicious = auroc(drawn.suspicious_score, drawn.is_suspicious)
        return [float(right.mean()), _mean(recalls), _mean(areas), suspicious, *areas, *recalls]

    found = iter(bootstrap_intervals(figures, scored.probabilities, scored.truth, scored.groups, draws).tolist())
    named: dict[str, Any] = {name: next(found) for name in ("accuracy", "bma", "macro_auc", "suspicious_auc")}
    for kind in ("auc", "recall"):
        named[kind] = {scored.classes[c]: next(found) for c in occurring}
    return named


def _mean(values: Sequence[float]) -> float:
    """Return the mean of those that are numbers: of the classes that were drawn."""
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def group_figures(scored: Scored, names: Sequence[str]) -> dict[str, Any]:
    """Return group name -> n, headline figures, and number and AUC of the suspicious; names: N groups."""
    values = np.asarray(names)
    figures = {}
    for name in sorted(set(names)):
        part = scored.of(values == name)
        figures[name] = {
            "n": len(part.truth),
            **headline(part),
            "suspicious_n": int(part.is_suspicious.sum()),
            "suspicious_auc": auroc(part.suspicious_score, part.is_suspicious),
        }
    return figures


def rounded(value: Any) -> Any:
    """Return a figure ready for JSON: DIGITS digits, None for what is not a number, inside dicts and lists as well."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return round(float(value), DIGITS) if math.isfinite(value) else None
    return value
