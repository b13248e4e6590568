"""The figures as lines for a terminal."""

from __future__ import annotations

from typing import Any

from derma_training.classifier.metrics_binary import COLUMNS

HEADLINE = ("accuracy", "bma", "macro_auc", "ece")


def as_text(document: dict[str, Any]) -> str:
    """Return a document of figures as text."""
    interval = document.get("interval_95", {})
    settings = document["settings"]
    lines = [
        f"{document['model']} on {document['n']} pictures of {settings['labels']}, classes: {settings['view']}",
        "  ".join(f"{name} {_figure(document[name])}{_range(interval.get(name))}" for name in HEADLINE),
    ]
    if "suspicious" in document:
        classes, auc = (document["suspicious"][key] for key in ("classes", "auc"))
        lines.append(f"{' + '.join(classes)}: AUC {_figure(auc)}{_range(interval.get('suspicious_auc'))}")
    lines += ["", _row("class", ["n", "called", "recall", *COLUMNS])]
    for name, row in document["classes"].items():
        lines.append(_row(name, [row["n"], row["called"], *(_figure(row[c]) for c in ("recall", *COLUMNS))]))
    lines.append(_row("mean", ["", "", _figure(document["bma"]), *(_figure(document["mean"][c]) for c in COLUMNS)]))
    for name, groups in document["by"].items():
        lines += ["", _row(name, ["n", *HEADLINE, "susp. n", "susp. AUC"])]
        for group, row in groups.items():
            figures = [_figure(row[key]) for key in HEADLINE]
            lines.append(_row(group, [row["n"], *figures, row["suspicious_n"], _figure(row["suspicious_auc"])]))
    if document["unknown"]:
        scores = {name: row for name, row in document["unknown"].items() if name != "n"}
        said = ", ".join(f"{name} {_figure(row['auroc'])}" for name, row in scores.items())
        lines += ["", f"unknown against lesions, AUROC of {document['unknown']['n']} pictures: {said}"]
    for target, row in document["readers"].items():
        lines.append(f"{row['below_curve']} of {row['n']} readers who look for {target} lie below the curve")
    return "\n".join([*lines, *_skipped(document["skipped"])])


def _skipped(skipped: dict[str, Any]) -> list[str]:
    lines = []
    if skipped["unlabelled"]:
        lines.append(f"left out: {skipped['unlabelled']} rows without a label")
    if skipped["labels"]:
        lines.append("left out: " + ", ".join(f"{n} rows labelled {name}" for name, n in skipped["labels"].items()))
    lines += [f"left out: {reason}" for reason in skipped["unreadable"].values()]
    return lines


def _row(name: str, cells: list[Any]) -> str:
    return f"{name:<24}" + "".join(f"{str(cell)[:11]:>12}" for cell in cells)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _range(interval: list[float | None] | None) -> str:
    return f" [{_figure(interval[0])}, {_figure(interval[1])}]" if interval else ""
