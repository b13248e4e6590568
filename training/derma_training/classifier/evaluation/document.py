"""Everything that was measured, as one JSON document."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import Any

import derma_common
from derma_training.classifier.evaluation.figures import all_figures, group_figures, rounded
from derma_training.classifier.evaluation.groups import values
from derma_training.classifier.evaluation.measure import Judged
from derma_training.classifier.evaluation.readers import against
from derma_training.classifier.evaluation.unknown import unknown_figures, unknown_scores
from derma_training.classifier.metrics_binary import curve


def document_of(judged: Judged) -> dict[str, Any]:
    """Return all figures: n, model, accuracy, bma, macro_auc, ece, classes and more (docs/evaluate-a-classifier.md)."""
    request, scored = judged.request, judged.scored
    document = {
        "n": len(judged.rows),
        "model": " + ".join(network.id for network in judged.networks),
        **all_figures(scored, request.draws),
        "by": {name: group_figures(scored, values(judged.rows, column)) for name, column in judged.by.items()},
        "readers": {
            target: against(people, curve(*scored.scores_of(target))) for target, people in judged.readers.items()
        },
        "unknown": _unknown(judged),
        "skipped": asdict(judged.skipped),
        "settings": _settings(judged),
    }
    if request.ensemble == "rank":  # ranks are no probabilities
        document["ece"] = None
    return {name: rounded(value) for name, value in document.items()}


def _unknown(judged: Judged) -> dict[str, Any] | None:
    """Return how well UNK is told from lesions, None unless there are both."""
    if judged.scale.unknown is None:
        return None
    index = judged.scale.classes.index(judged.scale.unknown)
    is_unknown = judged.scored.truth == index
    if not is_unknown.any() or is_unknown.all():
        return None
    known = [judged.scale.membership(network.classes)[:, index] == 0 for network in judged.networks]
    logits = [seen.logits[:, columns] for seen, columns in zip(judged.seen, known, strict=True)]
    return unknown_figures(unknown_scores(judged.scored.probabilities, index, logits), is_unknown)


def _settings(judged: Judged) -> dict[str, Any]:
    request = judged.request
    return {
        "labels": str(request.labels),
        "where": [f"{column}={value}" for column, value in request.where],
        "view": judged.scale.name,
        "crop": "centre square" if request.whole else "around the lesion box, else the centre square",
        "boxes": 0 if request.whole else sum(row.box is not None for row in judged.rows),
        "tta": request.tta,
        "priors": "rescaled" if request.rescale else "as trained",
        "ensemble": request.ensemble if len(judged.networks) > 1 else None,
        "groups_drawn": judged.group_column or "pictures",
        "draws": request.draws,
        "derma": derma_common.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
