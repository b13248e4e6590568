"""What the shipped models' figures are measured on, by name, and which part of it training may not see.

Splits are by lesion or patient, never by picture. `train` is seen by the network, `tune` chooses thresholds,
`test` is seen once, for the figures.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from derma_common.boxes import Boxes
from derma_common.drawn.photography import photograph
from derma_common.drawn.scene import draw_skin
from derma_common.errors import SourceError
from derma_common.preprocess import Image
from derma_common.recordings import VideoFile
from derma_common.seqset import SeqSet
from derma_training.detector.annotations import NO_BOXES, Annotated, Decoded, read_annotations

ITOBOS_TEST = ("image_0102", "image_0218", "image_0234", "image_0246")  # 9 boxes; one tile is all hair
DRAWN_SEED = {"tune": 900_001, "test": 900_002}  # far from the seeds of training scenes
DRAWN_SCENES = 120
HAND_EVERY = 5  # frames


def ham10000(data: Path, split: str) -> Iterable[Annotated]:
    """Return the boxed dermoscopic pictures of a split."""
    pictures = read_annotations(data / "ham10000_224").pictures
    return [p for p in pictures if (p.split if p.split == "train" else _half(p.group)) == split]


def _half(group: str) -> str:
    return "tune" if zlib.crc32(group.encode()) % 2 else "test"


def pad_ufes20(data: Path, split: str) -> Iterable[Annotated]:
    """Return the boxed phone photographs of a split; moles in their background are mostly unboxed."""
    pictures = read_annotations(data / "pad_ufes20_phone").pictures
    return [p for p in pictures if len(p.boxes) and (p.split if p.split == "train" else _third(p.group)) == split]


def _third(group: str) -> str:
    return "test" if zlib.crc32(group.encode()) % 3 else "tune"


def itobos(data: Path, split: str) -> Iterable[Annotated]:
    """Return the wide-field tiles of a split; the tune split has none."""
    pictures = read_annotations(data / "itobos_widefield").pictures
    return [p for p in pictures if ("test" if p.path.stem in ITOBOS_TEST else "train") == split]


def normal_skin(data: Path, split: str) -> Iterable[Annotated]:
    """Return the lesion-free frames of the forearm sweep: first half, then a sixth to tune, the last third to test."""
    pictures = read_annotations(data / "normal_skin_sweep").pictures
    shares = np.arange(len(pictures)) / len(pictures)
    parts = np.where(shares < 0.5, "train", np.where(shares < 2 / 3, "tune", "test"))
    return [picture for picture, part in zip(pictures, parts, strict=True) if part == split]


def hand_video(data: Path, split: str) -> Iterator[Annotated]:
    """Yield frames of the hand video, nothing boxed: of the first two thirds to train, of the rest to test."""
    folder = data / "video_hand"
    file = next(iter(sorted(folder.glob("*.mp4"))), None)
    if file is None:
        raise SourceError(f"{folder} holds no video")
    frames = [p for p in VideoFile(file).pictures(SeqSet()) if p.image is not None]
    for frame in frames[::HAND_EVERY]:
        if frame.image is not None and ("train" if frame.seq < len(frames) * 2 / 3 else "test") == split:
            yield decoded(file, frame.seq, frame.image, NO_BOXES, "hand_video")


def drawn(data: Path, split: str) -> Iterator[Annotated]:
    """Draw scenes that no training has seen, 640 × 480 px, as a camera sees a limb; there are none to train."""
    for n in range(DRAWN_SCENES if split in DRAWN_SEED else 0):
        rng = np.random.default_rng((DRAWN_SEED[split], n))
        scene = draw_skin(rng, 640, 480, px_per_mm=float(rng.uniform(4.0, 10.0)))
        yield decoded(Path("drawn"), n, photograph(rng, scene.image), scene.boxes, "drawn")


SOURCES: dict[str, Callable[[Path, str], Iterable[Annotated]]] = {
    "drawn": drawn,
    "ham10000": ham10000,
    "pad_ufes20": pad_ufes20,
    "itobos": itobos,
    "normal_skin": normal_skin,
    "hand_video": hand_video,
}


def recording(video: Path) -> Iterator[Annotated]:
    """Yield the frames of a drawn recording with the truth of the JSON beside it. Raises SourceError."""
    try:
        frames = json.loads(video.with_suffix(".json").read_text(encoding="utf-8"))["frames"]
        boxes = {int(frame["seq"]): [lesion["box"] for lesion in frame["lesions"]] for frame in frames}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{video} has no readable truth beside it: {error}") from error
    for picture in VideoFile(video).pictures(SeqSet()):
        if picture.seq in boxes and picture.image is not None:
            yield decoded(video, picture.seq, picture.image, boxes[picture.seq], "sample")


def decoded(origin: Path, number: int, image: Image, boxes: Sequence[Sequence[float]] | Boxes, source: str) -> Decoded:
    """Return picture `number` of `origin` with its pixels (H, W, 3) and boxes (N, 4) xyxy px."""
    rows = np.asarray(boxes, np.float32).reshape(-1, 4)
    name = origin.with_name(f"{origin.stem}-{number:05d}{origin.suffix}")
    kinds = np.zeros(len(rows), np.int64)
    return Decoded(name, image.shape[1], image.shape[0], rows, kinds, NO_BOXES, source, pixels=image)
