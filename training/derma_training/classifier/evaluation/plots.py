"""The figures of a report, each as the bytes of a PNG. Drawn with matplotlib, of the `bench` extra."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import numpy.typing as npt

from derma_common.errors import ResourceError
from derma_common.preprocess import Image
from derma_training.classifier.evaluation.readers import Reader
from derma_training.classifier.metrics import ECE_BINS
from derma_training.classifier.metrics_binary import Curve

Floats = npt.NDArray[np.float64]

DPI = 100
INK = "#26323e"
FAINT = "#b8c2cc"
TITLE_LETTERS = 26  # of a small picture, in a line


def need_matplotlib() -> None:
    """Raise ResourceError when figures cannot be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ResourceError("a report's figures need matplotlib: pip install 'derma[bench]'") from None


def confusion_figure(classes: Sequence[str], counts: npt.NDArray[np.int64]) -> bytes:
    """Draw counts (C, C + 1), true class by row: as shares of each row in colour, with the counts in them."""
    names = [*classes, "undecided"] if counts[:, -1].any() else list(classes)
    shown = counts[:, : len(names)]
    shares = shown / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = _figure(1.6 + 0.62 * len(names), 1.2 + 0.5 * len(classes))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), [f"{name} ({n})" for name, n in zip(classes, counts.sum(axis=1), strict=True)])
    axes.set_xlabel("answer")
    axes.set_ylabel("truth (pictures)")
    for i, j in np.ndindex(shown.shape):
        if shown[i, j]:
            colour = "white" if shares[i, j] > 0.55 else INK
            axes.text(j, i, f"{shares[i, j]:.2f}\n{shown[i, j]}", ha="center", va="center", fontsize=7, color=colour)
    return _png(figure)


def roc_figure(curves: Mapping[str, tuple[Curve, float]]) -> bytes:
    """Draw ROC curves by name, with their areas."""
    figure, axes = _figure(5.4, 5.0)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    for name, (points, area) in curves.items():
        axes.plot(points.fall_out, points.sensitivity, linewidth=1.4, label=f"{name}  {area:.3f}")
    _labels(axes, "1 − specificity", "sensitivity", "lower right", "AUC")
    return _png(figure)


def precision_figure(curves: Mapping[str, tuple[Curve, float]]) -> bytes:
    """Draw precision over sensitivity by name, in steps, with the average precisions."""
    figure, axes = _figure(5.4, 5.0)
    for name, (points, area) in curves.items():
        axes.step(points.sensitivity, points.precision, where="pre", linewidth=1.4, label=f"{name}  {area:.3f}")
    _labels(axes, "sensitivity (recall)", "PPV (precision)", "lower left", "AP")
    return _png(figure)


def readers_figure(target: str, points: Curve, area: float, readers: Sequence[Reader]) -> bytes:
    """Draw specificity over sensitivity, readers as points and their mean ± sd as a cross (Esteva 2017, Fig. 3)."""
    figure, axes = _figure(5.4, 5.0)
    axes.plot(points.sensitivity, 1.0 - points.fall_out, color="#1f5fa8", linewidth=1.6, label=f"model, AUC {area:.3f}")
    if readers:
        found = np.asarray([(r.sensitivity, r.specificity) for r in readers])
        axes.scatter(*found.T, s=22, color="#c0392b", zorder=3, label=f"{len(readers)} readers")
        mean, sd = found.mean(axis=0), found.std(axis=0, ddof=min(1, len(found) - 1))
        axes.errorbar(*mean, xerr=sd[0], yerr=sd[1], color="#2e8b57", marker="P", capsize=3, label="mean reader ± sd")
    axes.set_title(target, fontsize=10, loc="left")
    _labels(axes, "sensitivity", "specificity", "lower left", None)
    return _png(figure)


def reliability_figure(counts: npt.NDArray[np.int64], confidence: Floats, correct: Floats, ece: float | None) -> bytes:
    """Draw accuracy over confidence in equal bins, and how many pictures each bin has."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, 5.0), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    edges, filled = (np.arange(ECE_BINS) + 0.5) / ECE_BINS, counts > 0
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    axes.bar(edges[filled], correct[filled], width=0.9 / ECE_BINS, color="#7fb0dc")
    axes.plot(confidence[filled], correct[filled], "o-", color="#1f5fa8", markersize=4, linewidth=1)
    axes.set_ylim(0, 1)
    axes.set_ylabel("accuracy")
    axes.set_title("" if ece is None else f"expected calibration error {ece:.3f}", fontsize=10, loc="left")
    below.bar(edges, counts, width=0.9 / ECE_BINS, color=FAINT)
    below.set_xlim(0, 1)
    below.set_xlabel("confidence")
    below.set_ylabel("pictures")
    return _png(figure)


def abstention_figure(coverage: Floats, risk: Floats) -> bytes:
    """Draw the share of wrong answers over the share of pictures that is answered, the surest first."""
    figure, axes = _figure(5.4, 3.6)
    axes.plot(coverage, risk, color="#1f5fa8", linewidth=1.4)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, None)
    axes.set_xlabel("answered (share of pictures)")
    axes.set_ylabel("wrong (share of answers)")
    return _png(figure)


def map_figure(positions: npt.NDArray[Any], classes: Sequence[str], truth: npt.NDArray[np.int64]) -> bytes:
    """Draw positions (N, 2) coloured by their true class."""
    figure, axes = _figure(6.4, 5.4)
    for c in np.unique(truth):
        axes.scatter(*positions[truth == c].T, s=9, color=_colour(int(c)), label=classes[c], alpha=0.8, linewidths=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(fontsize=8, markerscale=2, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _png(figure)


def panels_figure(rows: Sequence[tuple[str, Mapping[str, Image]]]) -> bytes:
    """Draw rows of pictures, each with a title: name -> (S, S, 3) uint8 BGR, the same names in every row."""
    from matplotlib.figure import Figure

    names = list(rows[0][1])
    blocks = 2 if len(rows) > 1 else 1  # side by side, to spare height
    height = (len(rows) + blocks - 1) // blocks
    columns = blocks * len(names)
    figure = Figure(figsize=(1.55 * columns, 2.0 * height), layout="constrained")
    grid = np.atleast_2d(figure.subplots(height, columns, squeeze=False))
    for axes in grid.flat:
        axes.axis("off")
    for index, (title, pictures) in enumerate(rows):
        first = (index % blocks) * len(names)
        for offset, name in enumerate(names):
            axes = grid[index // blocks, first + offset]
            axes.imshow(pictures[name][:, :, ::-1])
            axes.set_title(fill(title if offset == 0 else name, TITLE_LETTERS), fontsize=7)
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _labels(axes: Any, x: str, y: str, legend: str, title: str | None) -> None:
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#e6eaee", linewidth=0.6)
    axes.legend(fontsize=8, framealpha=0.85, edgecolor="none", loc=legend, title=title, title_fontsize=8)


def _colour(index: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab10"](index % 10)


def _png(figure: Any) -> bytes:
    with io.BytesIO() as stream:
        figure.savefig(stream, format="png", dpi=DPI)
        return stream.getvalue()
