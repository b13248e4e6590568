"""Examine single pictures in this process: the services' own networks and cuts, without services, rings or database."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from derma_common.inference.classification import Classifier
from derma_common.inference.detection import Detector
from derma_common.inference.explain import Heat, occlusion
from derma_common.inference.tiling import detect_tiled, windows_of
from derma_common.preprocess import Image, cut, square_around
from derma_common.settings import Settings, TilePx
from derma_common.shipped import model_dir

MOST_EXPLAINED = 4  # lesions of a picture, the surest boxes: each takes some 80 inferences
Box = tuple[float, float, float, float]  # x1 y1 x2 y2, px of the picture
Square = tuple[int, int, int, int]  # the same in whole px; may reach over the edge


@dataclass(frozen=True)
class Explanation:
    """Where the probability of class `of` comes from: `heat` (S, S), its loss where a part of `crop` is covered."""

    of: str
    crop: Image
    heat: Heat


@dataclass(frozen=True)
class Lesion:
    """A lesion of a picture: its box, the square that was classified, its score (None: the picture is its crop)."""

    box: Box
    square: Square
    score: float | None
    probabilities: dict[str, float]
    explanation: Explanation | None = None
    missing: str = ""  # as a stored finding: nothing is missing here


class Examiner:
    """The two networks that the settings choose, opened once for many pictures."""

    def __init__(self, settings: Settings, threads: int, tile_px: TilePx, whole: bool, explain: bool) -> None:
        """`whole`: pictures are crops already, no detector is opened. Raises ModelError."""
        self._tile_px, self._explain = tile_px, explain
        threshold = settings.detector.score_threshold
        self._threshold = threshold if threshold >= 0 else None
        with ExitStack() as opening:
            self.classifier = Classifier.open(model_dir(settings.classifier.model), threads)
            opening.callback(self.classifier.close)
            self.detector = None if whole else Detector.open(model_dir(settings.detector.model), threads)
            if self.detector is not None:
                opening.callback(self.detector.close)
            self._closing = opening.pop_all()

    def examine(self, image: Image) -> list[Lesion]:
        """Return the lesions of image (H, W, 3) uint8 BGR, the surest box first."""
        rows, columns = image.shape[:2]
        if self.detector is None:
            square = centre_square(columns, rows)
            return self._classified(image, [((0.0, 0.0, float(columns), float(rows)), square, None)])
        windows = windows_of(columns, rows, self._tile_px, self.detector.card.input)
        found = detect_tiled(self.detector, image, windows, self._threshold)
        margin = self.classifier.card.crop_margin
        boxes: list[Box] = [(float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in found.boxes]
        scored = zip(boxes, found.scores, strict=True)
        return self._classified(image, [(box, square_around(box, margin), float(score)) for box, score in scored])

    def _classified(self, image: Image, places: Sequence[tuple[Box, Square, float | None]]) -> list[Lesion]:
        card = self.classifier.card
        crops = [cut(image, square, card.input.width) for _, square, _ in places]
        lesions = []
        for n, (row, (box, square, score)) in enumerate(zip(self.classifier.classify(crops), places, strict=True)):
            explanation = None
            if self._explain and n < MOST_EXPLAINED:
                target = int(row.argmax())
                heat = occlusion(self.classifier.classify, crops[n], target)
                explanation = Explanation(card.classes[target], crops[n], heat)
            probabilities = {name: float(p) for name, p in zip(card.classes, row, strict=True)}
            lesions.append(Lesion(box, square, score, probabilities, explanation))
        return lesions

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()


def centre_square(width: int, height: int) -> Square:
    """Return the largest square in the middle of a picture of width × height px."""
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
