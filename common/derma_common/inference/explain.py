"""Where a classifier looks, seen from outside: cover a part of the crop and see what the answer loses.

Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2. It needs nothing but the
network's answers, so it works on every model that can be served; its cost is a fixed number of inferences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.preprocess import Image

Heat = npt.NDArray[np.float64]

PATCH_SHARE = 0.25  # side of what is covered, as a share of the crop's
NOTABLE = 0.1  # a smaller loss of probability is nothing to point at
STEPS = 9  # positions along each axis: 82 inferences for one crop


def occlusion(
    probabilities: Callable[[Sequence[Image]], npt.ArrayLike], crop: Image, target: int, steps: int = STEPS
) -> Heat:
    """Return how much of class `target`'s probability is lost by covering each place of a crop, (S, S).

    probabilities: crops -> (N, C). crop: (S, S, 3) uint8 BGR. A square in the colour of the crop's rim (the skin around
    a lesion) takes steps × steps positions; a pixel has the mean loss of the squares that cover it. Negative where
    covering helps the class.
    """
    size = crop.shape[0]
    side = max(1, round(size * PATCH_SHARE))
    starts = np.linspace(-(side // 2), size - side + side // 2, steps).round().astype(int)
    # (top, left, bottom, right); squares over the rim, so that corners are covered as often as one can
    places = [(max(0, y), max(0, x), y + side, x + side) for y in starts for x in starts]
    colour = rim_colour(crop)
    covered = [crop.copy() for _ in places]
    for image, (top, left, bottom, right) in zip(covered, places, strict=True):
        image[top:bottom, left:right] = colour
    found = np.asarray(probabilities([crop, *covered]), dtype=np.float64)[:, target]
    losses, counts = np.zeros((size, size)), np.zeros((size, size))
    for (top, left, bottom, right), loss in zip(places, found[0] - found[1:], strict=True):
        losses[top:bottom, left:right] += loss
        counts[top:bottom, left:right] += 1
    return np.asarray(losses / np.maximum(counts, 1))


def rim_colour(crop: Image) -> npt.NDArray[np.uint8]:
    """Return the median colour (3,) uint8 BGR of the outermost pixels of crop (S, S, 3) uint8."""
    rim = np.concatenate([crop[0], crop[-1], crop[:, 0], crop[:, -1]])
    return np.asarray(np.median(rim, axis=0), dtype=np.uint8)


def overlay(crop: Image, heat: Heat, least: float = 1e-9) -> Image:
    """Return crop (S, S, 3) uint8 BGR with heat (S, S) in colour over it: blue for none, red for the largest.

    Red is at least `least`: an answer that depends on no place must not look as if it did.
    """
    shown = np.clip(heat / max(float(heat.max()), least), 0.0, 1.0)
    colours = cv2.applyColorMap((255 * shown).astype(np.uint8), cv2.COLORMAP_JET)
    return np.asarray(cv2.addWeighted(crop, 0.55, colours, 0.45, 0.0), dtype=np.uint8)
