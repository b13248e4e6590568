"""One drawn picture of skin with the exact boxes of its lesions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from derma_common.drawn import details, skin
from derma_common.drawn.lesions import DIAMETER_MM, KINDS, DrawnLesion, draw_outline, paint

KIND_SHARES = (0.48, 0.14, 0.10, 0.16, 0.12)  # of KINDS, when none is asked for
MIN_DIAMETER_PX = 9.0  # smaller lesions are drawn this large, so that each is worth a box
CANDIDATES = 14  # places tried for each lesion; the freest one is taken


@dataclass(frozen=True)
class Scene:
    """A picture (H, W, 3) uint8 BGR and the lesions drawn in it."""

    image: skin.Image
    lesions: tuple[DrawnLesion, ...]

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """The lesions' bounds (N, 4) xyxy px, cut to the picture."""
        height, width = self.image.shape[:2]
        bounds = np.asarray([lesion.box for lesion in self.lesions], np.float32).reshape(-1, 4)
        return np.clip(bounds, 0, np.asarray([width, height, width, height], np.float32))


def draw_skin(
    rng: np.random.Generator,
    width: int,
    height: int,
    *,
    px_per_mm: float = 6.0,
    lesions: int | None = None,
    kinds: Sequence[str] | None = None,
    fitzpatrick: float | None = None,
    hair_per_cm2: float | None = None,
    freckles_per_cm2: float | None = None,
    background: bool | None = None,
) -> Scene:
    """Draw skin of `width` × `height` px as a camera sees it at `px_per_mm`; what is None is left to chance.

    `kinds` names the lesions one by one (cycled); freckles, hair and background are never lesions.
    """
    layers = skin.bare(rng, height, width, px_per_mm)
    density = rng.choice((0.0, 0.3, 1.5), p=(0.5, 0.3, 0.2)) if freckles_per_cm2 is None else freckles_per_cm2
    details.freckles(rng, layers, px_per_mm, float(density))
    cover = None
    if rng.random() < 0.3 if background is None else background:
        light, cover = details.body_edge(rng, height, width)
        layers.light *= light
    number = int(rng.integers(0, 9)) if lesions is None else lesions
    drawn = _place(rng, width, height, px_per_mm, number, kinds, cover)
    for lesion in drawn:
        paint(rng, layers, lesion)
    skin.shade(rng, layers, px_per_mm)
    image = skin.compose(layers, skin.tone(_fitzpatrick(rng) if fitzpatrick is None else fitzpatrick))
    hairs = float(rng.choice((0.0, 1.0, 6.0, 20.0), p=(0.4, 0.3, 0.2, 0.1))) if hair_per_cm2 is None else hair_per_cm2
    image = details.hair(rng, image, px_per_mm, hairs, rng.uniform(5.0, 15.0))
    if cover is not None:
        behind = details.backdrop(rng, height, width)
        share = cover[..., None]
        image = np.asarray(behind + (image.astype(np.float32) - behind) * share, dtype=np.uint8)
    return Scene(image, tuple(drawn))


def _fitzpatrick(rng: np.random.Generator) -> float:
    return float(rng.uniform(1.0, 6.0))


def _place(
    rng: np.random.Generator,
    width: int,
    height: int,
    px_per_mm: float,
    number: int,
    kinds: Sequence[str] | None,
    cover: npt.NDArray[np.float32] | None,
) -> list[DrawnLesion]:
    """Choose `number` lesions on skin that do not touch (Mitchell's best candidate); fewer when there is no room."""
    placed: list[DrawnLesion] = []
    circles: list[tuple[float, float, float]] = []
    for n in range(number):
        kind = str(rng.choice(KINDS, p=KIND_SHARES)) if kinds is None else kinds[n % len(kinds)]
        low, high = DIAMETER_MM[kind]
        diameter = max(MIN_DIAMETER_PX, px_per_mm * low * (high / low) ** rng.uniform(0, 1))
        diameter = min(diameter, 0.6 * min(width, height))
        best, best_room = None, 0.0
        for x, y in rng.uniform((0, 0), (width, height), (CANDIDATES, 2)):
            room = _room(x, y, diameter, circles, width, height, cover)
            if room > best_room:
                best, best_room = (float(x), float(y)), room
        if best is None:
            continue
        placed.append(DrawnLesion(kind, draw_outline(rng, kind, best, diameter)))
        circles.append((*best, diameter))
    return placed


def _room(
    x: float,
    y: float,
    diameter: float,
    circles: list[tuple[float, float, float]],
    width: int,
    height: int,
    cover: npt.NDArray[np.float32] | None,
) -> float:
    """Return the free distance around a place in px, ≤ 0 where a lesion of `diameter` px does not fit."""
    margin = 0.75 * diameter
    room = min(x, y, width - x, height - y) - margin
    if cover is not None and room > 0:
        corners = [(x + dx * margin, y + dy * margin) for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
        if min(cover[int(cy), int(cx)] for cx, cy in corners) < 1:
            return 0.0
    apart = [float(np.hypot(x - cx, y - cy)) - 0.75 * (diameter + other) for cx, cy, other in circles]
    return min([room + min(width, height), *apart]) if room > 0 else 0.0
