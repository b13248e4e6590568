"""The curves behind the figures as a picture: precision over recall, recall over false positives."""

from __future__ import annotations

from pathlib import Path

from derma_common.errors import ConfigError, ResourceError
from derma_training.detector.evaluate.matching import Matches
from derma_training.detector.evaluate.measures import figures, froc, precision_recall


def draw_curves(matches: Matches, threshold: float, file: Path) -> None:
    """Write both curves at IoU ≥ 0.5 as PNG; the dot is the threshold. Raises ConfigError, ResourceError."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("curves need matplotlib: pip install 'derma[bench]'") from error
    at, (recall, precision, _) = figures(matches, threshold), precision_recall(matches)
    points = froc(matches)
    if not points:
        raise ConfigError("there are no curves of pictures without lesions, or of a detector that finds nothing")
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(recall, precision, lw=1.2)
    left.plot([at["recall"]], [at["precision"]], "o")
    left.set(xlabel="recall", ylabel="precision", title=f"AP50 {at['ap50']:.3f}", xlim=(0, 1), ylim=(0, 1.02))
    right.plot([p["fp_per_image"] for p in points], [p["recall"] for p in points], drawstyle="steps-post", lw=1.2)
    right.plot([at["fp_per_image"]], [at["recall"]], "o")
    right.set(xlabel="false positives per picture", ylabel="recall", title="FROC", ylim=(0, 1.02))
    right.set_xscale("symlog", linthresh=0.1)
    right.set_xlim(left=0)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=120)
    except OSError as error:
        raise ResourceError(f"cannot write {file}: {error.strerror}") from error
