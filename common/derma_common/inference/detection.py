"""What a detector's output means: letterbox, run, threshold, NMS, boxes in px of the captured frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from derma_common.boxes import Boxes, clip, nms
from derma_common.inference.card import ModelCard
from derma_common.inference.choice import CPU, RunnerChoice
from derma_common.inference.opening import open_runner
from derma_common.inference.runner import PictureRunner, Runner
from derma_common.preprocess import Image, letterbox, placement, to_tensor

MIN_SIDE_PX = 2.0  # a thinner box has no picture to classify


@dataclass(frozen=True)
class Detections:
    """The candidate lesions of one picture, best first: boxes (N, 4) xyxy frame px, scores (N,) in [0, 1]."""

    boxes: Boxes
    scores: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


class Detector:
    """An opened detector model."""

    def __init__(self, card: ModelCard, runner: Runner) -> None:
        self.card, self.runner = card, runner
        self._prepares = runner if isinstance(runner, PictureRunner) else None

    @classmethod
    def open(cls, directory: Path, threads: int = 1, choice: RunnerChoice = CPU) -> Self:
        """Open the detector in `directory`. Raises ModelError, or ResourceError when the choice cannot run here."""
        return cls(*open_runner(directory, "detector", threads, choice))

    def detect(
        self, image: Image, score_threshold: float | None = None, iou_threshold: float | None = None
    ) -> Detections:
        """Find lesions in image (H, W, 3) uint8 BGR; the thresholds default to the card's."""
        spec = self.card.input
        if self._prepares is not None:
            placed = placement(image.shape[1], image.shape[0], spec.width, spec.height)
            outputs = self._prepares.infer_letterboxed(image)
        else:
            fitted, placed = letterbox(image, spec.width, spec.height)
            outputs = self.runner.infer({spec.name: to_tensor([fitted], spec.mean, spec.std)})
        low = self.card.score_threshold if score_threshold is None else score_threshold
        same = self.card.iou_threshold if iou_threshold is None else iou_threshold
        found = decode(outputs["boxes"][0], outputs["scores"][0].max(axis=1), low, same)
        boxes = clip(placed.to_frame(found.boxes), image.shape[1], image.shape[0])
        visible = np.all(boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE_PX, axis=1)
        return Detections(boxes[visible], found.scores[visible])

    def close(self) -> None:
        """Free the network."""
        self.runner.close()


def decode(boxes: Boxes, scores: npt.NDArray[np.float32], score_threshold: float, iou_threshold: float) -> Detections:
    """Keep rows of boxes (A, 4) xyxy px with score (A,) above the threshold and suppress their doubles."""
    # a box that is no number would suppress all others: no IoU with it is below any threshold
    likely = (scores > score_threshold) & np.isfinite(boxes).all(axis=1)
    boxes, scores = boxes[likely], scores[likely]
    kept = nms(boxes, scores, iou_threshold)
    return Detections(boxes[kept], scores[kept])
