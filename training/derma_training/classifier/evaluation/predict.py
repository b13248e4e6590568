"""From labelled pictures to posteriors: crops, looks, networks, one scale of classes, an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from derma_common.errors import SourceError
from derma_common.posterior import STEPPAN_BETA, dihedral_views, zoomed_views
from derma_common.preprocess import Image, cut, resize, square_around
from derma_common.recordings import read_picture
from derma_training.classifier.crops import centre_square, in_px
from derma_training.classifier.evaluation.models import Network
from derma_training.classifier.evaluation.table import Labelled

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]
Tta = Literal["none", "steppan", "dihedral"]

CHUNK = 16  # pictures decoded at once
UNREADABLE_SHARE = 0.05  # more pictures than that cannot be left out of figures in silence


@dataclass(frozen=True)
class Seen:
    """What one network says of N pictures.

    probabilities: (N, C), calibrated. logits: (N, C). features: (N, D) or None. With several looks at a picture each is
    their weighted mean.
    """

    probabilities: Floats
    logits: Floats
    features: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class Predicted:
    """What all networks say of the pictures that could be read, and why the others could not."""

    rows: tuple[int, ...]  # of the table, in its order
    seen: tuple[Seen, ...]  # one a network
    unreadable: dict[str, str]  # name -> reason


def predict(
    rows: Sequence[Labelled],
    networks: Sequence[Network],
    *,
    tta: Tta = "none",
    whole: bool = False,
    progress: Progress = lambda done, of: None,
) -> Predicted:
    """Show every picture to every network. `whole`: lesion boxes are not used.

    Raises SourceError when more than one picture in twenty cannot be read, or none can.
    """
    kept: list[int] = []
    unreadable: dict[str, str] = {}
    parts: list[list[Seen]] = [[] for _ in networks]
    for start in range(0, len(rows), CHUNK):
        images: list[tuple[Labelled, Image]] = []
        for number, row in enumerate(rows[start : start + CHUNK], start=start):
            try:
                images.append((row, read_picture(row.file)))
                kept.append(number)
            except SourceError as error:
                unreadable[row.name] = str(error)
        if images:
            for network, seen in zip(networks, parts, strict=True):
                seen.append(look_at(network, images, tta, whole))
        progress(min(start + CHUNK, len(rows)), len(rows))
    if len(unreadable) > UNREADABLE_SHARE * len(rows) or not kept:
        reasons = "; ".join(list(unreadable.values())[:3])
        raise SourceError(f"{len(unreadable)} of {len(rows)} pictures cannot be read: {reasons}")
    return Predicted(tuple(kept), tuple(_joined(seen) for seen in parts), unreadable)


def look_at(network: Network, images: Sequence[tuple[Labelled, Image]], tta: Tta, whole: bool) -> Seen:
    """Return what one network says of decoded pictures."""
    views = [looks(lesion_crop(row, image, network.crop_margin, whole), tta) for row, image in images]
    answers = network.answer([resize(view, network.size_px) for of in views for view in of])
    weights = look_weights(tta)

    def mean(values: npt.NDArray[Any]) -> Floats:
        grouped = values.astype(np.float64).reshape(len(images), len(weights), -1)
        return np.asarray(np.einsum("nld,l->nd", grouped, weights))

    features = answers.features
    return Seen(
        mean(network.posterior(answers)),
        mean(answers.logits),
        None if features is None else mean(features).astype(np.float32),
    )


def lesion_crop(row: Labelled, image: Image, margin: float, whole: bool = False) -> Image:
    """Return the square of a picture (H, W, 3) uint8 that a network is to judge, at the picture's own resolution.

    The pipeline's crop around the row's lesion box; without a box, or if `whole`, the largest centred square.
    """
    height, width = image.shape[:2]
    if row.box is None or whole:
        square = centre_square(width, height)
    else:
        square = square_around(in_px(row.box, width, height), margin)
    return cut(image, square, square[2] - square[0])


def looks(crop: Image, tta: Tta) -> list[Image]:
    """Return the views of a crop, as many as `look_weights` has entries."""
    if tta == "steppan":
        return [crop, *zoomed_views(crop)]
    return dihedral_views(crop) if tta == "dihedral" else [crop]


def look_weights(tta: Tta) -> Floats:
    """Return how much each view counts; they sum to 1."""
    if tta == "steppan":
        return np.asarray([STEPPAN_BETA, *[(1.0 - STEPPAN_BETA) / 8.0] * 8])
    return np.full(8, 1 / 8) if tta == "dihedral" else np.ones(1)


def _joined(parts: Sequence[Seen]) -> Seen:
    features = [part.features for part in parts if part.features is not None]
    return Seen(
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate([part.logits for part in parts]),
        np.concatenate(features) if features else None,
    )
