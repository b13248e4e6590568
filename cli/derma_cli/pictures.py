"""Draw findings on the pictures of recorded sources, so that a person can look at them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from derma_common.errors import ResourceError
from derma_common.preprocess import Image
from derma_common.recordings import Recording, SyntheticRecording, VideoFile, open_recording
from derma_common.seqset import SeqSet
from derma_common.store import StoredFinding, StoreReader

BGR = tuple[int, int, int]
CLASSIFIED: BGR = (60, 200, 60)
NOT_CLASSIFIED: BGR = (160, 160, 160)
INK: BGR = (255, 255, 255)
TELL_EVERY_S = 5.0


class Drawable(Protocol):
    """What a box is drawn from: a stored finding, or a lesion of a picture that was examined by itself."""

    @property
    def box(self) -> tuple[float, float, float, float]: ...

    @property
    def probabilities(self) -> Mapping[str, float]: ...

    @property
    def missing(self) -> str: ...


def draw_pictures(
    store: StoreReader,
    run: str,
    camera: str | None,
    folder: Path,
    told: Callable[[dict[str, float]], dict[str, float]] = dict,
) -> Iterator[str]:
    """Write one annotated mp4 per video and one JPEG per picture into `folder`; yield lines that say how far it is.

    `told` turns class -> probability into the classes to show.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot write pictures into {folder}: {error.strerror}") from error
    for name, (source, live) in store.cameras(run).items():
        if camera not in (None, name):
            continue
        if live:
            yield f"{name}: a live source leaves no pictures to draw on"
            continue
        by_seq: dict[int, list[StoredFinding]] = defaultdict(list)
        for finding in store.findings(run, name):
            by_seq[finding.seq].append(replace(finding, probabilities=told(finding.probabilities)))
        recording = open_recording(source)
        if isinstance(recording, VideoFile | SyntheticRecording):
            yield from _draw_video(recording, recording.fps, by_seq, folder / f"{name}.mp4")
        else:
            yield _draw_files(recording, by_seq, folder / name)


def _draw_video(recording: Recording, fps: float, by_seq: dict[int, list[StoredFinding]], path: Path) -> Iterator[str]:
    writer: cv2.VideoWriter | None = None
    n, told_s = 0, time.monotonic()
    for picture in recording.pictures(SeqSet()):
        if picture.image is None:
            continue
        image = annotate(picture.image, by_seq.get(picture.seq, []), f"frame {picture.seq}")
        if writer is None:
            size = (image.shape[1], image.shape[0])
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
            if not writer.isOpened():
                raise ResourceError(f"cannot write the video {path}")
        writer.write(image)
        n += 1
        if time.monotonic() - told_s > TELL_EVERY_S:
            told_s = time.monotonic()
            yield f"{path}: {n} frames so far"
    if writer is not None:
        writer.release()
    yield f"{path}: {n} frames"


def _draw_files(recording: Recording, by_seq: dict[int, list[StoredFinding]], folder: Path) -> str:
    n = 0
    for picture in recording.pictures(SeqSet()):
        if picture.image is None:
            continue
        target = folder / Path(picture.origin).with_suffix(".jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(target), annotate(picture.image, by_seq.get(picture.seq, []), "")):
            raise ResourceError(f"cannot write the picture {target}")
        n += 1
    return f"{folder}: {n} pictures"


def annotate(image: Image, findings: Sequence[Drawable], caption: str) -> Image:
    """Return image (H, W, 3) uint8 BGR with boxes, scores and the most probable class of each finding."""
    drawn = image.copy()
    scale = max(0.4, min(image.shape[:2]) / 1200)
    for finding in findings:
        x1, y1, x2, y2 = (round(v) for v in finding.box)
        best = max(finding.probabilities.items(), key=lambda item: item[1], default=None)
        colour = CLASSIFIED if best else NOT_CLASSIFIED
        cv2.rectangle(drawn, (x1, y1), (x2, y2), colour, 2)
        text = f"{best[0]} {best[1]:.2f}" if best else f"not classified: {finding.missing}"
        _write(drawn, text, (x1, y1 - 4), scale, colour)
    if caption:
        _write(drawn, caption + "  research software, not for clinical use", (8, image.shape[0] - 10), scale, INK)
    return np.asarray(drawn, dtype=np.uint8)


def _write(image: Image, text: str, at: tuple[int, int], scale: float, colour: BGR) -> None:
    x, y = max(0, at[0]), max(12, at[1])
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
