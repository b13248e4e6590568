"""`unknown`: choose when an exported classifier tells a crop as unknown, and write the rule on its card.

    python -m derma_training.classifier unknown MODEL --manifest manifest.csv --score p_unk --lost 0.005

The threshold is the one below which `--lost` of the held-back fold's lesions lie: what the rule costs. What it finds
depends on what comes: on the manifest's own unknown pictures it is printed, on others it must be measured
(bench/unknowns.py, bench/classifiers.py). Or, with `--risk 0.15`, it is the one above which fewer than 15 % of the
answers on lesions are wrong, with 95 % confidence for lesions like those held back; the others get no answer but
unknown (`derma_common.posterior_abstention.abstention_threshold`).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from derma_common.errors import ConfigError
from derma_common.inference.card import ModelCard, UnknownRule, UnknownScore, read_card, sha256_of, write_card
from derma_common.inference.unknown import UnknownCheck
from derma_common.posterior_abstention import abstention_threshold
from derma_common.shipped import model_dir
from derma_training.classifier.commands.evaluate import progress
from derma_training.classifier.evaluation.classes import unknown_class
from derma_training.classifier.evaluation.models import Network, open_exported
from derma_training.classifier.evaluation.predict import predict
from derma_training.classifier.evaluation.table import Labelled, read_table
from derma_training.classifier.manifest import TEST

KNOWN_FILE = "known.npy"
KNOWN_BYTES = 1_000_000
MOST_KNOWN = 384  # lesions whose features are kept
FIGURES = "rule for the unknown, on the calibration part"


def main(arguments: list[str]) -> None:
    """Write the rule. Raises UserError."""
    options = _parser().parse_args(arguments)
    if not 0.0 < options.lost < 1.0:
        raise ConfigError(f"--lost {options.lost:g} is no share between 0 and 1")
    folder = model_dir(options.model)
    card = read_card(folder)
    rows = [row for row in read_table(options.manifest) if row.columns.get("fold") != TEST]
    with closing(open_exported(folder, options.threads)) as network:
        rule, known, figures = fit(replace(network, unknown=None), card, rows, options)
    if known is not None:
        np.save(folder / KNOWN_FILE, known, allow_pickle=False)
        rule = replace(rule, file=KNOWN_FILE, sha256=sha256_of(folder / KNOWN_FILE))
    write_card(replace(card, unknown=rule, figures={**card.figures, FIGURES: figures}), folder)
    print(json.dumps({"score": rule.score, "threshold": rule.threshold, **figures}))


def fit(
    network: Network, card: ModelCard, rows: Sequence[Labelled], options: argparse.Namespace
) -> tuple[UnknownRule, npt.NDArray[np.float16] | None, dict[str, Any]]:
    """Return the rule, the features (M, D) that the score `knn` compares with, and what the rule does.

    Raises ConfigError: no class for the unknown, no lesions, no features.
    """
    told_as = unknown_class(card.classes)
    if told_as is None:
        raise ConfigError(f"{card.name} with its classes {', '.join(card.classes)} has none for the unknown")
    strange = np.asarray([unknown_class([row.label]) is not None for row in rows])
    held_back = np.asarray([row.columns.get("fold") == str(options.fold) for row in rows])
    if not (held_back & ~strange).any():
        raise ConfigError(f"fold {options.fold} of {options.manifest} holds no lesions")
    rule, known = UnknownRule(options.score, 0.0, told_as), None
    if rule.score == "knn":
        known = known_features(network, [rows[i] for i in np.flatnonzero(~strange & ~held_back).tolist()])
        rule = replace(rule, neighbours=options.neighbours)
        if not 0 < rule.neighbours <= len(known):
            raise ConfigError(f"--neighbours {rule.neighbours}: the features of {len(known)} lesions are kept")
    chosen = np.flatnonzero(held_back)
    found = predict([rows[i] for i in chosen.tolist()], [network], progress=progress)
    is_strange, seen = strange[chosen[list(found.rows)]], found.seen[0]
    scores = UnknownCheck(rule, card.classes, known).score(seen.probabilities, seen.logits, seen.features)
    lesions, others = np.sort(scores[~is_strange]), scores[is_strange]
    threshold = float(lesions[int(options.lost * len(lesions))])
    assured: dict[str, float] = {}
    if options.risk is not None:
        answers = [card.classes[c] for c in seen.probabilities.argmax(axis=1)]
        asked = [rows[chosen[i]] for i in found.rows]
        threshold, assured = of_risk(scores, answers, asked, options.risk)
    figures = assured | {
        "lesions": len(lesions),
        "lesions_lost": round(float((lesions < threshold).mean()), 4),
        "unknown": len(others),
        "unknown_found": round(float((others < threshold).mean()), 4) if len(others) else None,
    }
    return replace(rule, threshold=threshold), known, figures


def of_risk(
    scores: npt.NDArray[np.float64], answers: Sequence[str], rows: Sequence[Labelled], risk: float
) -> tuple[float, dict[str, float]]:
    """Return the threshold of the scores (N,) below which no answer is given, and what it assures on lesions.

    Raises ConfigError: no threshold keeps the risk, or none is needed.
    """
    first = [i for i in first_of_groups(rows) if unknown_class([rows[i].label]) is None]  # the bound is for such
    right = np.asarray([answers[i] == rows[i].label for i in first])
    found = abstention_threshold(scores[first], right, risk)
    if not np.isfinite(found.threshold):
        raise ConfigError(f"the risk of {len(first)} lesions is below {risk:g} without a rule: {found.bound:.3f}")
    threshold = float(np.nextafter(found.threshold, np.inf))  # what lies above it is answered
    return threshold, {"risk": found.risk, "risk_below": risk, "answered": found.coverage}


def first_of_groups(rows: Sequence[Labelled]) -> list[int]:
    """Return the index of the first row of each group; a row without one stands for itself."""
    return list({row.columns.get("group") or row.name: i for i, row in reversed([*enumerate(rows)])}.values())


def known_features(network: Network, rows: Sequence[Labelled]) -> npt.NDArray[np.float16]:
    """Return features (M, D), of length 1, of lesions of each class alike, as many as KNOWN_BYTES hold.

    Raises ConfigError when the network gives no features.
    """
    by_class: dict[str, list[Labelled]] = {}
    for i in np.random.default_rng(0).permutation(len(rows)):
        by_class.setdefault(rows[i].label, []).append(rows[i])
    in_turn = [row for row in chain.from_iterable(zip_longest(*by_class.values())) if row is not None]
    features = predict(in_turn[:MOST_KNOWN], [network], progress=progress).seen[0].features
    if features is None:
        raise ConfigError(f"{network.id} gives no features: export it anew")
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(unit[: KNOWN_BYTES // (2 * features.shape[1])], dtype=np.float16)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="derma_training.classifier unknown",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", help="name or folder of an exported classifier")
    add("--manifest", type=Path, required=True, metavar="CSV", help="that it was trained on")
    add("--fold", type=int, default=0, help="held back from training (default 0)")
    add("--score", choices=get_args(UnknownScore), default="p_unk")
    add("--lost", type=float, default=0.005, help="share of the lesions that may be told as unknown (default 0.005)")
    add("--risk", type=float, help="instead: the share of answers on lesions that may be wrong")
    add("--neighbours", type=int, default=10, help="of the score knn (default 10)")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser
