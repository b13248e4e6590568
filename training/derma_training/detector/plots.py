"""Pictures of a training run: its losses, and precision over recall. Needs matplotlib (the `bench` extra)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LOSSES = "losses.png"
PR_CURVE = "pr_curve.png"
Floats = npt.NDArray[np.float64]
Curve = tuple[Floats, Floats, Floats]  # recall, precision and score, best score first


def plot_losses(log: Path, file: Path) -> None:
    """Draw the losses and the tune split's AP50 of `log` (one JSON line an epoch) over the pictures shown."""
    from matplotlib.figure import Figure

    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    images = [line["images"] for line in lines]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, label in (("obj", "objectness"), ("box", "box (CIoU)"), ("cls", "class")):
        axes.plot(images, [line[name] for line in lines], label=label)
    axes.set(xlabel="pictures shown", ylabel="loss per picture (larger pictures, larger loss)", yscale="log")
    measured = [(line["images"], line["tune"]["ap50"]) for line in lines if "tune" in line]
    if measured:
        right = axes.twinx()
        right.plot(*zip(*measured, strict=True), "k.--", label="AP50 (tune)")
        right.set(ylabel="AP50 on the tune split", ylim=(0, 1))
        right.legend(loc="upper right")
    axes.legend(loc="lower left")
    figure.savefig(file, dpi=110)


def plot_pr(curves: dict[str, Curve], threshold: float, file: Path) -> None:
    """Draw precision over recall at IoU 0.5 for each named curve, with a dot at the threshold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        recall, precision, scores = curve
        (line,) = axes.plot(recall, precision, label=name)
        above = int((scores > threshold).sum())
        if above:
            axes.plot(recall[above - 1], precision[above - 1], "o", color=line.get_color())
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(f"IoU 0.5; the dot: score {threshold:g}")
    axes.legend(loc="lower left")
    figure.savefig(file, dpi=110)
