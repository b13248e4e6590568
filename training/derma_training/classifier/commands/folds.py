"""`folds`: the figures of a cross-validation: each run measured on the fold that it held back, their mean ± sd.

    for f in 0 1 2 3 4; do derma train classifier --manifest manifest.csv --fold $f --out runs/fold-$f; done
    python -m derma_training.classifier folds runs/fold-* --manifest manifest.csv [--view three.json]

A view (docs/taxonomy.md) asks for other classes than the trained ones, such as the three or nine of Esteva et al. 2017:
their probabilities are sums. A run's temperature was fitted on the same fold, and `--patience` chose its epoch there.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from derma_common.errors import ConfigError, ModelError
from derma_training.classifier.commands.evaluate import progress
from derma_training.classifier.commands.train import MODEL_FOLDER
from derma_training.classifier.evaluation.figures import headline, rounded
from derma_training.classifier.evaluation.measure import Request, judge

NOTE_FILE = "run.json"  # as in classifier.run, which needs torch


def main(arguments: list[str]) -> None:
    """Measure and print. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog="derma_training.classifier folds",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of training runs")
    parser.add_argument("--manifest", type=Path, required=True, metavar="CSV", help="that all were trained on")
    parser.add_argument(
        "--view", metavar="NAME", help="measure in the classes of a view: live, ham10000, … or FILE#NAME"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    held_back = [fold_of(run) for run in options.runs]
    if len(set(held_back)) != len(held_back) or len(held_back) < 2:
        raise ConfigError(f"a cross-validation needs two runs or more, each with a fold of its own, not {held_back}")
    rows = [
        measured(run, fold, options.manifest, options.view, options.threads)
        for run, fold in zip(options.runs, held_back, strict=True)
    ]
    document = {"folds": rows, **summary(rows)}
    print(json.dumps(rounded(document), indent=1) if options.json else as_text(document))


def fold_of(run: Path) -> int:
    """Return the fold that a run held back. Raises ModelError when it is no training run."""
    try:
        return int(json.loads((run / NOTE_FILE).read_text(encoding="utf-8"))["setup"]["fold"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{run} is no training run of a classifier: {NOTE_FILE} cannot be read ({error})") from error


def measured(run: Path, fold: int, manifest: Path, view: str | None, threads: int) -> dict[str, Any]:
    """Return the headline figures of a run's exported model on a fold."""
    request = Request(
        manifest, (str(run / MODEL_FOLDER),), where=(("fold", str(fold)),), view=view, by=(), threads=threads
    )
    with ExitStack() as opened:
        judged = judge(request, opened, progress)
        figures = headline(judged.scored)
    return {"run": run.name, "fold": fold, "n": len(judged.rows), **figures}


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return mean and sample standard deviation of each figure over the folds."""
    spread = {}
    for name in ("accuracy", "bma", "macro_auc", "ece"):
        values = [row[name] for row in rows]
        spread[name] = {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1))}
    return spread


def as_text(document: dict[str, Any]) -> str:
    """Return the figures as a table."""
    names = ("accuracy", "bma", "macro_auc", "ece")
    lines = [f"{'':<24}{'n':>8}" + "".join(f"{name:>18}" for name in names)]
    for row in document["folds"]:
        lines.append(f"{row['run']:<24}{row['n']:>8}" + "".join(f"{row[name]:>18.3f}" for name in names))
    cells = (f"{document[name]['mean']:.3f} ± {document[name]['sd']:.3f}" for name in names)
    return "\n".join([*lines, f"{'mean ± sd':<24}{'':>8}" + "".join(f"{cell:>18}" for cell in cells)])
