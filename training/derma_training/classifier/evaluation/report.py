"""The report: one HTML file with everything in it, and beside it the figures and predictions as data."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from derma_common.errors import ResourceError
from derma_common.posterior_abstention import max_softmax, risk_coverage
from derma_training.classifier.evaluation import plots
from derma_training.classifier.evaluation.embed import tsne
from derma_training.classifier.evaluation.figures import SUSPICIOUS
from derma_training.classifier.evaluation.measure import Judged
from derma_training.classifier.evaluation.panels import panels
from derma_training.classifier.evaluation.submission import write_predictions
from derma_training.classifier.evaluation.text import HEADLINE
from derma_training.classifier.metrics import confusion, decisions, reliability
from derma_training.classifier.metrics_binary import COLUMNS, auroc, average_precision, curve

REPORT_FILE, FIGURES_FILE, PREDICTIONS_FILE = "report.html", "figures.json", "predictions.csv"
MAPPED = 600  # pictures in the t-SNE: it grows with their square
NAMES = {
    "auc": "AUC", "auc80": "AUC, sens. > 80 %", "ap": "AP", "accuracy": "accuracy", "sensitivity": "sensitivity",
    "specificity": "specificity", "dice": "Dice", "ppv": "PPV", "npv": "NPV", "bma": "BMA", "macro_auc": "macro AUC",
    "ece": "ECE",
}  # fmt: skip
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #26323e; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #d5dce3 }
table { border-collapse: collapse; font-size: 13px; margin: .6rem 0 }
th, td { padding: .25rem .55rem; text-align: right; border-bottom: 1px solid #e6eaee }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 1px solid #8a97a3 }
img { max-width: 100% } .row { display: flex; flex-wrap: wrap; gap: 1rem } .row > div { flex: 0 1 48% }
.note { color: #5d6b78; font-size: 13px }
"""
Cell = str | float | int | None


def prepare(directory: Path) -> None:
    """Make the report's folder before the long work. Raises ResourceError, also when figures cannot be drawn."""
    plots.need_matplotlib()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{directory} cannot be made: {error.strerror}") from error


def write_report(directory: Path, judged: Judged, document: dict[str, Any]) -> Path:
    """Write report.html, figures.json and predictions.csv into `directory`; return the first. Raises ResourceError."""
    write_predictions(directory / PREDICTIONS_FILE, judged)
    page = "\n".join(_page(judged, document))
    try:
        text = json.dumps(document, indent=1, ensure_ascii=False)
        (directory / FIGURES_FILE).write_text(text + "\n", encoding="utf-8")
        (directory / REPORT_FILE).write_text(page, encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"{directory} cannot be written: {error.strerror}") from error
    return directory / REPORT_FILE


def _page(judged: Judged, document: dict[str, Any]) -> Iterable[str]:
    title = f"{document['model']} on {judged.request.labels.name}"
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style>"
    yield f"<h1>{escape(title)}</h1>"
    yield _note("Research software: figures say how a network agrees with the labels of this table, and nothing else.")
    yield from _overall(document)
    yield from _classes(document)
    yield from _curves(judged, document)
    yield from _calibration(judged, document)
    yield from _groups(document)
    yield from _unknown(document)
    yield "<h2>Where the network looks</h2>"
    yield _note(
        "For each class its surest right and its surest wrong answer. Red: where covering a place takes most "
        "of the answer's probability away; all blue: no place takes a tenth."
        + (" First network of the ensemble." if len(judged.networks) > 1 else "")
    )
    yield _image(plots.panels_figure(panels(judged)), "crops and maps")
    yield from _map(judged)
    yield from _made(document)


def _overall(document: dict[str, Any]) -> Iterable[str]:
    intervals = document.get("interval_95", {})
    rows: list[Sequence[Cell]] = [[NAMES[key], document[key], _interval(intervals.get(key))] for key in HEADLINE]
    if SUSPICIOUS in document:
        found = document[SUSPICIOUS]
        name = f"AUC of {' + '.join(found['classes'])} together"
        rows.append([name, found["auc"], _interval(intervals.get("suspicious_auc"))])
    yield f"<p>{document['n']} pictures, {document['groups']} independent ({document['settings']['groups_drawn']}).</p>"
    yield _table(["", "", "95 % interval"], rows)


def _classes(document: dict[str, Any]) -> Iterable[str]:
    yield "<h2>Classes</h2>"
    yield _note(
        "Recall: of the pictures of a class, the share whose most probable class it is; BMA is its mean. The columns "
        "after it are those of the ISIC 2019 challenge: each class against the rest, called when its probability is "
        "above 0.5; a share of nothing is 1. Means are over the classes that occur."
    )
    head = ["class", "n", "answers", "recall", *(NAMES[c] for c in COLUMNS)]
    rows: list[Sequence[Cell]] = [
        [name, row["n"], row["called"], row["recall"], *(row[c] for c in COLUMNS)]
        for name, row in document["classes"].items()
    ]
    yield _table(head, [*rows, ["mean", "", "", document["bma"], *(document["mean"][c] for c in COLUMNS)]])
    intervals = document.get("interval_95", {})
    if intervals:
        yield "<p>95 % intervals:</p>"
        names = intervals["auc"]
        yield _table(
            ["class", "AUC", "recall"],
            [[name, _interval(intervals["auc"][name]), _interval(intervals["recall"][name])] for name in names],
        )


def _curves(judged: Judged, document: dict[str, Any]) -> Iterable[str]:
    scored = judged.scored
    yield "<h2>Answers</h2>"
    yield _image(plots.confusion_figure(scored.classes, confusion(scored.probabilities, scored.truth)), "confusion")
    targets = scored.targets()
    classes = {name: scored.scores_of(name) for name in targets if name != SUSPICIOUS}
    if not classes:
        return
    rocs = {name: (curve(*pair), auroc(*pair)) for name, pair in classes.items()}
    precisions = {name: (curve(*pair), average_precision(*pair)) for name, pair in classes.items()}
    yield "<h2>Curves</h2>"
    yield _row([_image(plots.roc_figure(rocs), "ROC"), _image(plots.precision_figure(precisions), "precision")])
    pictures = []
    for target in dict.fromkeys([*targets[:1], *judged.readers]):
        pair, people = scored.scores_of(target), judged.readers.get(target, [])
        name = " + ".join(scored.suspicious) if target == SUSPICIOUS else target
        drawn = plots.readers_figure(name, curve(*pair), auroc(*pair), people)
        pictures.append(_image(drawn, "sensitivity and specificity"))
    yield _row(pictures)
    for target, row in document["readers"].items():
        yield _note(f"{row['below_curve']} of {row['n']} readers who look for {target} lie below the curve.")


def _calibration(judged: Judged, document: dict[str, Any]) -> Iterable[str]:
    scored = judged.scored
    right = decisions(scored.probabilities) == scored.truth
    _, coverage, risk = risk_coverage(max_softmax(scored.probabilities), right)
    yield "<h2>Calibration and abstention</h2>"
    bins = reliability(scored.probabilities, scored.truth)
    calibration = _image(plots.reliability_figure(*bins, document["ece"]), "reliability")
    yield _row([calibration, _image(plots.abstention_figure(coverage, risk), "risk and coverage")])


def _groups(document: dict[str, Any]) -> Iterable[str]:
    if document["by"]:
        yield "<h2>Groups</h2>"
        yield _note("Small groups say little. A mean over classes is over those that occur in the group.")
    for name, groups in document["by"].items():
        head = [name, "n", *(NAMES[key] for key in HEADLINE), "suspicious n", "suspicious AUC"]
        keys = ("n", *HEADLINE, "suspicious_n", "suspicious_auc")
        yield _table(head, [[group, *(row[key] for key in keys)] for group, row in groups.items()])


def _unknown(document: dict[str, Any]) -> Iterable[str]:
    found = document["unknown"]
    if found:
        yield "<h2>Unknown pictures</h2>"
        yield _note(f"{found['n']} pictures of none of the classes, told from the lesions by three scores.")
        rows = [[name, row["auroc"], row["fall_out_at_95"]] for name, row in found.items() if name != "n"]
        yield _table(["score", "AUROC", "lesions above the threshold that finds 95 %"], rows)


def _map(judged: Judged) -> Iterable[str]:
    features = judged.seen[0].features
    if features is None or len(features) < 4:
        return
    chosen = np.random.default_rng(0).permutation(len(features))[:MAPPED]
    yield "<h2>Last layer, t-SNE</h2>"
    if len(chosen) < len(features):
        yield _note(f"{MAPPED} pictures drawn at random.")
    yield _image(plots.map_figure(tsne(features[chosen]), judged.scored.classes, judged.scored.truth[chosen]), "t-SNE")


def _made(document: dict[str, Any]) -> Iterable[str]:
    yield "<h2>How this was measured</h2>"
    settings = {name: value for name, value in document["settings"].items() if value not in (None, [])}
    yield _table(["", ""], [[name, str(value)] for name, value in settings.items()])
    skipped = document["skipped"]
    lines = [f"{skipped['unlabelled']} rows without a label"] if skipped["unlabelled"] else []
    lines += [f"{n} rows labelled {name}" for name, n in skipped["labels"].items()]
    lines += list(skipped["unreadable"].values())
    if lines:
        yield "<p>Left out:</p><ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Cell) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else escape(str(value))


def _interval(interval: Sequence[float | None] | None) -> str:
    return "" if interval is None else " to ".join(_cell(value) for value in interval)


def _image(png: bytes, what: str) -> str:
    return f'<img alt="{escape(what)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _row(parts: Iterable[str]) -> str:
    return f"<div class=row>{''.join(f'<div>{part}</div>' for part in parts)}</div>"


def _note(text: str) -> str:
    return f"<p class=note>{escape(text)}</p>"
