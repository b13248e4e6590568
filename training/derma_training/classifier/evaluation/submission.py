"""Predictions as CSV: of every picture, and as a submission to the ISIC 2019 challenge."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt

from derma_common.errors import ConfigError, ResourceError
from derma_common.taxonomy import find_view
from derma_training.classifier.evaluation.measure import Judged, combined
from derma_training.classifier.metrics import UNDECIDED, decisions

Floats = npt.NDArray[np.float64]

CHALLENGE = "isic2019"


def write_predictions(path: Path, judged: Judged) -> None:
    """Write file, label, truth, answer and the probability of each class. Raises ResourceError."""
    scored = judged.scored
    answers = ["undecided" if a == UNDECIDED else scored.classes[a] for a in decisions(scored.probabilities)]
    rows = (
        [row.name, row.label, scored.classes[truth], answer, *_texts(line)]
        for row, truth, answer, line in zip(judged.rows, scored.truth, answers, scored.probabilities, strict=True)
    )
    _write(path, ["file", "label", "truth", "answer", *scored.classes], rows)


def write_submission(path: Path, judged: Judged) -> None:
    """Write image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK as the challenge reads it, whatever classes were scored.

    Raises ConfigError for two pictures of one name and for models coarser than the challenge's classes, ResourceError.
    """
    view = find_view(CHALLENGE)
    posterior = combined(judged.request, judged.networks, judged.seen, view.membership)
    images = [PurePath(row.name).stem for row in judged.rows]
    if len(set(images)) < len(images):
        twice = next(image for image in images if images.count(image) > 1)
        raise ConfigError(f"a submission names every picture once, and there are several called {twice}")
    lines = ([image, *_texts(line)] for image, line in zip(images, posterior, strict=True))
    _write(path, ["image", *view.classes], lines)


def _texts(row: Floats) -> list[str]:
    return [repr(min(1.0, max(0.0, float(value)))) for value in row]  # 0.0, not 0: the scorer refuses whole numbers


def _write(path: Path, header: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    try:
        with path.open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(header)
            table.writerows(lines)
    except OSError as error:
        raise ResourceError(f"{path} cannot be written: {error.strerror}") from error
