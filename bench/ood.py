"""Compare scores that tell unknown pictures from known lesions, the product's own and those of pytorch-ood.

    python bench/ood.py --model MODEL --known TRAIN.csv --labels TEST.csv [--kind COLUMN] [--leave-out] [--json]

MODEL is a training run's folder, or an exported model with the output `features` (then without ODIN, which needs
gradients). TRAIN.csv names lesions that the network was trained on: what features look like when they are known.
TEST.csv names lesions and unknown pictures (label UNK) that it never saw; `--kind` is the column that says what kind
of unknown each is (source). Tables are read as by `derma evaluate classifier`; --known-where and --where choose rows.

Printed for each kind of unknown against all lesions of TEST.csv, unknown pictures being the positives: AUROC, and the
share of lesions that is called unknown where 95 % of the unknown are found. With `--leave-out` also each class in turn
as if it were unknown: its logit and its known lesions are taken away. The features have learned from it all the same,
so these figures are better than those for a disease that nobody trained on. Needs `train`, pytorch-ood and scipy.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pytorch_ood.detector import ODIN, RMD, Mahalanobis, ViM

from derma_common.errors import ConfigError, UserError
from derma_common.posterior_abstention import max_softmax, nearest_neighbour_score, negative_energy
from derma_common.preprocess import resize, softmax, to_tensor
from derma_common.recordings import read_picture
from derma_training.classifier.commands.evaluate import condition, progress
from derma_training.classifier.evaluation.classes import UNKNOWN, choose_scale, place_labels
from derma_training.classifier.evaluation.models import Network, open_network
from derma_training.classifier.evaluation.predict import Seen, lesion_crop, predict
from derma_training.classifier.evaluation.table import Labelled, read_table
from derma_training.classifier.evaluation.unknown import unknown_figures, unknown_scores

Array = npt.NDArray[Any]

NEIGHBOURS = 50  # as OpenOOD
LINEAR = 1e-2  # largest error of a logit for which the last layer counts as linear in the features


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--known", type=Path, required=True)
    parser.add_argument("--known-where", action="append", default=[], type=condition)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--where", action="append", default=[], type=condition)
    parser.add_argument("--kind", default="source")
    parser.add_argument("--leave-out", action="store_true", help="each class in turn as if it were unknown")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        network = open_network(options.model, options.threads)
        known, truth, _ = seen_by(network, read_table(options.known, where=options.known_where))
        tested, labels, rows = seen_by(network, read_table(options.labels, where=options.where))
        found = compare(network, known, truth, tested, labels, rows, options.kind)
        if options.leave_out:
            found["kinds"] |= left_out(network, known, truth, tested, labels)
    except UserError as error:
        print(f"ood: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(found, indent=1) if options.json else as_text(found))
    return 0


def seen_by(network: Network, table: list[Labelled]) -> tuple[Seen, Array, list[Labelled]]:
    """Return what the network says of the labelled rows, their class indices (N,), and the rows."""
    labelled = [row for row in table if row.label]
    found = predict(labelled, [network], progress=progress)
    rows = [labelled[i] for i in found.rows]
    words = [row.label for row in rows]
    scale = choose_scale([network.classes], words)
    places = place_labels(scale, words)
    if scale.classes != network.classes:
        raise ConfigError(f"the labels must be classes of the network: {', '.join(network.classes)}")
    if found.seen[0].features is None:
        raise ConfigError(f"{network.id} gives no features: export it anew, or name its training run")
    return found.seen[0], places, rows


def compare(
    network: Network, known: Seen, truth: Array, tested: Seen, labels: Array, rows: list[Labelled], kind: str
) -> dict[str, Any]:
    """Return kind -> score -> figures."""
    unknown = network.classes.index(UNKNOWN)
    lesions = truth != unknown
    scores = unknown_scores(tested.probabilities, unknown, [np.delete(tested.logits, unknown, axis=1)])
    scores |= feature_scores(known.features[lesions], truth[lesions], known.logits[lesions], tested.features)
    if network.module is not None:
        scores["odin"] = odin(network, rows, unknown)
    is_unknown = labels == unknown
    kinds = np.asarray([row.columns.get(kind, "") or "unknown" for row in rows])
    figures = {"all": unknown_figures(scores, is_unknown)}
    for name in sorted(set(kinds[is_unknown])):
        chosen = ~is_unknown | (kinds == name)
        figures[name] = unknown_figures({key: value[chosen] for key, value in scores.items()}, is_unknown[chosen])
    return {"model": network.id, "known": int(lesions.sum()), "lesions": int((~is_unknown).sum()), "kinds": figures}


def left_out(network: Network, known: Seen, truth: Array, tested: Seen, labels: Array) -> dict[str, Any]:
    """Return class -> score -> figures of telling its lesions from all others by a network that does not answer it."""
    unknown = network.classes.index(UNKNOWN)
    lesions, learned = labels != unknown, truth != unknown
    figures = {}
    for c in sorted(set(labels[lesions])):
        columns = [k for k in range(len(network.classes)) if k not in (c, unknown)]
        logits = tested.logits[lesions][:, columns]
        scores = {
            "p_unk": tested.probabilities[lesions, unknown],
            "max_softmax": -max_softmax(softmax(logits.astype(np.float32))),
            "energy": -negative_energy(logits),
            "knn": -nearest_neighbour_score(
                tested.features[lesions], known.features[learned & (truth != c)], NEIGHBOURS
            ),
        }
        figures[f"left out: {network.classes[c]}"] = unknown_figures(scores, labels[lesions] == c)
    return figures


def feature_scores(known: Array, truth: Array, logits: Array, tested: Array) -> dict[str, Array]:
    """Return scores (N,), higher for the unknown, of tested features (N, D) by known ones (M, D)."""
    features, query = torch.from_numpy(known).float(), torch.from_numpy(tested).float()
    classes = torch.from_numpy(np.unique(truth, return_inverse=True)[1])  # contiguous, as the library wants them
    scores = {"knn": -nearest_neighbour_score(tested, known, NEIGHBOURS)}
    for name, detector in (("mahalanobis", Mahalanobis(None)), ("relative mahalanobis", RMD(None))):
        scores[name] = detector.fit_features(features, classes).predict_features(query).numpy()
    layer = last_layer(known, logits)
    if layer is not None:
        vim = ViM(None, known.shape[1] // 2, *layer)
        scores["vim"] = vim.fit_features(features, classes).predict_features(query).numpy()
    return scores


def last_layer(features: Array, logits: Array) -> tuple[Any, Any] | None:
    """Return the weights (C, D) and bias (C,) that turn features (M, D) into logits (M, C).

    None when they are not linear in the features, or M does not exceed D, so that the known cannot say.
    """
    design = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
    solved = np.linalg.lstsq(design, logits.astype(np.float64), rcond=None)[0]
    if len(design) <= design.shape[1] or np.abs(design @ solved - logits).max() > LINEAR:
        return None
    return torch.from_numpy(solved[:-1].T.copy()), torch.from_numpy(solved[-1].copy())


def odin(network: Network, rows: list[Labelled], unknown: int) -> Array:
    """Return ODIN's scores (N,), higher for the unknown, with the paper's temperature and step (Liang et al. 2018).

    The class UNK is no answer here: a network that learnt it is sure of it.
    """
    known = [c for c in range(len(network.classes)) if c != unknown]
    detector = ODIN(lambda images: network.module(images)[:, known], norm_std=list(network.std))
    scores = []
    for start in range(0, len(rows), network.batch):
        crops = [
            resize(lesion_crop(row, read_picture(row.file), network.crop_margin), network.size_px)
            for row in rows[start : start + network.batch]
        ]
        tensor = torch.from_numpy(to_tensor(crops, network.mean, network.std))
        scores.append(detector.predict(tensor).detach().numpy())
    return np.concatenate(scores)


def as_text(found: dict[str, Any]) -> str:
    """Return the comparison as a table: AUROC and false alarms at 95 %."""
    lines = [f"{found['model']}: {found['lesions']} lesions, features of {found['known']} known ones"]
    for kind, figures in found["kinds"].items():
        lines += [
            "",
            f"{kind} ({figures['n']} pictures)",
            f"  {'score':<24}{'AUROC':>8}{'lesions called unknown at 95 %':>34}",
        ]
        for name, row in figures.items():
            if name != "n":
                lines.append(f"  {name:<24}{row['auroc']:>8.3f}{row['fall_out_at_95']:>34.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
