"""What may be done with class probabilities after the network: ensembles, averaged views, other priors.

The order matters. (1) Temperature on the logits of each network (`preprocess.softmax`), fitted on held-out pictures.
(2) The mean over test-time views of that network. (3) Prior rescaling with that network's own class counts. (4) The
ensemble. The temperature is fitted where classes are as frequent as in the held-out data, so it comes before the priors
change; and what leaves (3) holds in a world where all classes are equally frequent, which no clinic is: choose a class
by it, but state the probabilities of (2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from derma_common.preprocess import Image

Array = npt.NDArray[np.float64]
STEPPAN_ZOOM = 1.35  # of the eight zoomed views: fastai 1's default, which Steppan & Hanke's code left as it is
STEPPAN_BETA = 0.4  # weight of the plain view: fastai 1's default


def rescale_priors(probabilities: npt.ArrayLike, counts: Sequence[float]) -> Array:
    """Return probabilities (N, C) as if every class were equally frequent (Steppan & Hanke 2021).

    p'_c ∝ p_c · N / n_c, where `counts` (C,) are the training pictures n_c and N is their sum; rows are normalised.
    This is Bayes' rule with another prior (Saerens et al. 2002). Raises ValueError when a count is not positive.
    """
    n = np.asarray(counts, dtype=np.float64)
    if not (n > 0).all():
        raise ValueError(f"every class needs a positive count, got {list(counts)}")
    scaled = np.asarray(probabilities, dtype=np.float64) * (n.sum() / n)
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def mean(members: npt.ArrayLike) -> Array:
    """Return the arithmetic mean (N, C) of members (M, N, C), as Steppan & Hanke combine their networks."""
    return np.asarray(np.mean(np.asarray(members, dtype=np.float64), axis=0))


def mean_rank(members: npt.ArrayLike) -> Array:
    """Return scores (N, C) in (0, 1]: per member and class the rank among the N pictures over N, then the mean.

    Ties share their mean rank. From the SIIM-ISIC 2020 winners (Ha et al. 2020, arXiv 2010.05351): it makes members
    comparable whose probabilities are not. A score orders the pictures of one class for a set of pictures; it is no
    probability, and means nothing for a single picture.
    """
    stack = np.asarray(members, dtype=np.float64)
    ranked = np.empty_like(stack)
    for m, c in np.ndindex(stack.shape[0], stack.shape[2]):
        _, inverse, counts = np.unique(stack[m, :, c], return_inverse=True, return_counts=True)
        ranked[m, :, c] = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    return mean(ranked / max(1, stack.shape[1]))


def mean_by_confidence(members: npt.ArrayLike) -> Array:
    """Return the mean (N, C) of members (M, N, C), each weighted on each picture by its largest probability."""
    stack = np.asarray(members, dtype=np.float64)
    weights = stack.max(axis=2, keepdims=True)
    return np.asarray((stack * weights).sum(axis=0) / weights.sum(axis=0))


def majority(members: npt.ArrayLike) -> Array:
    """Return the shares (N, C) of the members' votes (M, N, C): each votes for its most probable class.

    A tie between classes stays a tie. A member whose own largest probability is shared splits its vote.
    """
    stack = np.asarray(members, dtype=np.float64)
    votes = stack == stack.max(axis=2, keepdims=True)
    return mean(votes / votes.sum(axis=2, keepdims=True))


ENSEMBLES: dict[str, Callable[[npt.ArrayLike], Array]] = {
    "mean": mean, "rank": mean_rank, "confidence": mean_by_confidence, "majority": majority,
}  # fmt: skip


def zoomed_views(image: Image) -> list[Image]:
    """Return Steppan & Hanke's eight test-time views of image (H, W, 3) uint8: a zoom into each corner, × mirrored.

    A view shows 1 / 1.35 of the width and height and keeps its px: the classifier resizes it like any crop. The order
    is fastai 1's (`_TTA`): view i is at the bottom if i & 1, at the right if i & 2, mirrored if i & 4.
    """
    rows, columns = (max(1, round(side / STEPPAN_ZOOM)) for side in image.shape[:2])
    views = []
    for i in range(8):
        top = (image.shape[0] - rows) * (i & 1)
        left = (image.shape[1] - columns) * (i >> 1 & 1)
        view = image[top : top + rows, left : left + columns]
        views.append(np.ascontiguousarray(view[:, ::-1] if i & 4 else view))
    return views


def dihedral_views(image: Image) -> list[Image]:
    """Return the eight rotations by 90° and reflections of image (H, W, 3) uint8, itself first."""
    turned = [np.rot90(image, k) for k in range(4)]
    return [np.ascontiguousarray(view) for quarter in turned for view in (quarter, quarter[:, ::-1])]


def with_views(
    classify: Callable[[Sequence[Image]], npt.ArrayLike],
    crops: Sequence[Image],
    views: Callable[[Image], list[Image]] = zoomed_views,
    beta: float = STEPPAN_BETA,
) -> Array:
    """Return β · p(crop) + (1 − β) · mean of p over its views, (N, C), for crops as `Classifier.classify` takes them.

    This is fastai 1's test-time augmentation; what Steppan & Hanke submitted was β = 0. `classify` gets one crop's
    views at a time.
    """
    plain = np.asarray(classify(crops), dtype=np.float64)
    averages = [np.asarray(classify(views(crop)), dtype=np.float64).mean(axis=0) for crop in crops]
    return np.asarray(beta * plain + (1.0 - beta) * np.asarray(averages).reshape(plain.shape))
