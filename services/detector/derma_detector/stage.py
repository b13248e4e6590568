"""One frame in, its detections and the work for the classifiers out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from derma_common.inference.detection import Detector
from derma_common.inference.tiling import Rotation, detect_tiled
from derma_common.messages import BoxRow, Crops, Detections, Frame, Message
from derma_common.preprocess import square_around
from derma_common.rings import RingReader
from derma_common.stage import BEAT_S

MAX_DETECTIONS = 256  # the best ones of a frame; bounds every message and the work that one frame makes


class DetectorStage:
    """Finds lesions in frames."""

    wait_s = BEAT_S

    def __init__(
        self,
        detector: Detector,
        rings: RingReader,
        crop_margin: float,
        score_threshold: float | None = None,
        tiled: Mapping[str, Rotation] | None = None,
        beat: Callable[[], object] | None = None,
    ) -> None:
        """`crop_margin` is the classifier card's; a `score_threshold` of None is the detector card's.

        `tiled` holds the cameras whose pictures are also looked at in tiles; `beat` is called before each tile.
        """
        self._detector, self._rings = detector, rings
        self._crop_margin, self._score_threshold = crop_margin, score_threshold
        self._tiled, self._beat = dict(tiled or {}), beat
        self.finished = False

    def handle(self, message: Message) -> Iterable[Message]:
        """Detect lesions in a frame. Raises StaleHandle when its pixels are gone."""
        if not isinstance(message, Frame):
            return []
        started_ns = time.monotonic_ns()
        with self._rings.picture(message.handle) as image:
            rotation = self._tiled.get(message.camera)
            windows = rotation.turn(image.shape[1], image.shape[0]) if rotation else []
            found = detect_tiled(self._detector, image, windows, self._score_threshold, before_each=self._beat)
        boxes: tuple[BoxRow, ...] = tuple(
            (float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in found.boxes[:MAX_DETECTIONS]
        )
        scores = tuple(float(s) for s in found.scores[:MAX_DETECTIONS])
        done_ns = time.monotonic_ns()
        out: list[Message] = [Detections(message, boxes, scores, self._detector.card.id, started_ns, done_ns)]
        if boxes:
            squares = tuple(square_around(box, self._crop_margin) for box in boxes)
            out.append(Crops(message, 0, squares, done_ns))
        return out

    def tick(self, now_ns: int) -> Iterable[Message]:
        """Do nothing: the work server hands out crops by itself."""
        return ()

    def leave(self) -> None:
        """Leave at once: what is queued here is sent again by capture."""
        self.finished = True
