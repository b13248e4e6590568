"""Real pictures with lesion boxes, read from a folder of data sets: what is there, and what is held out.

Splits are by lesion or patient, never by picture. `train` is seen by the network, `tune` chooses thresholds,
`test` is seen once, for the figures.
"""

from __future__ import annotations

import csv
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.boxes import Boxes
from derma_common.errors import SourceError
from derma_common.preprocess import Image

ITOBOS_TEST = ("image_0102", "image_0218", "image_0234", "image_0246")  # 9 boxes; one tile is all hair
NONE = np.zeros((0, 4), np.float32)


@dataclass(frozen=True)
class Picture:
    """A labelled picture: boxes (N, 4) xyxy px; in `ignored` (K, 4) a detection is neither right nor wrong."""

    image: Image
    boxes: Boxes
    ignored: Boxes
    source: str
    close_up: bool = False  # one lesion fills it: shown whole, not cropped


def ham10000(data: Path, split: str) -> Iterator[Picture]:
    """Yield the boxed dermoscopic pictures of a split."""
    folder = data / "ham10000_224"
    for row in _rows(folder):
        if row["x1"] and _ham_split(row) == split:
            image = _read(folder / row["file"])
            height, width = image.shape[:2]
            box = np.asarray([[float(row[k]) for k in ("x1", "y1", "x2", "y2")]], np.float32)
            box *= np.asarray([width, height, width, height], np.float32)
            yield Picture(image, box, NONE, "ham10000", close_up=True)


def _ham_split(row: dict[str, str]) -> str:
    if row["split"] == "train":
        return "train"
    return "tune" if zlib.crc32(row["lesion_id"].encode()) % 2 else "test"


def pad_ufes20(data: Path, split: str) -> Iterator[Picture]:
    """Yield the boxed phone photographs of a split; moles in their background are mostly unboxed."""
    folder = data / "pad_ufes20_phone"
    for row in _rows(folder):
        boxes = np.asarray(json.loads(row["boxes_x1y1x2y2_norm"]), np.float32).reshape(-1, 4)
        if len(boxes) and _pad_split(row) == split:
            image = _read(folder / row["file"])
            height, width = image.shape[:2]
            yield Picture(image, boxes * np.asarray([width, height] * 2, np.float32), NONE, "pad_ufes20", close_up=True)


def _pad_split(row: dict[str, str]) -> str:
    if row["split"] == "train":
        return "train"
    return "tune" if zlib.crc32(row["patient_id"].encode()) % 3 == 0 else "test"


def itobos(data: Path, split: str) -> Iterator[Picture]:
    """Yield the wide-field tiles of a split; the tune split has none."""
    folder = data / "itobos_widefield"
    for row in _rows(folder):
        if ("test" if Path(row["file"]).stem in ITOBOS_TEST else "train") == split:
            boxes = [box[:4] for box in json.loads(row["boxes_px_x1y1x2y2_kind"])]
            ignored = json.loads(row["ignore_boxes_px"] or "[]")
            yield Picture(_read(folder / row["file"]), _boxes(boxes), _boxes(ignored), "itobos")


def normal_skin(data: Path, split: str) -> Iterator[Picture]:
    """Yield the lesion-free frames of the forearm sweep: first half, then a sixth to tune, the last third to test."""
    files = sorted((data / "normal_skin_sweep" / "frames").glob("*.jpg"))
    if not files:
        raise SourceError(f"{data / 'normal_skin_sweep' / 'frames'} holds no frames")
    for n, file in enumerate(files):
        share = n / len(files)
        if ("train" if share < 0.5 else "tune" if share < 2 / 3 else "test") == split:
            yield Picture(_read(file), NONE, NONE, "normal_skin")


def hand_video(data: Path, split: str, every: int = 5) -> Iterator[Picture]:
    """Yield every `every`th frame of the hand video (nothing boxed): first two thirds to train, the rest to test."""
    folder = data / "video_hand"
    file = next(iter(sorted(folder.glob("*.mp4"))), None)
    if file is None:
        raise SourceError(f"{folder} holds no video")
    video = cv2.VideoCapture(str(file))
    frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    for n in range(frames):
        good, image = video.read()
        if not good:
            break
        if n % every == 0 and ("train" if n < frames * 2 / 3 else "test") == split:
            yield Picture(np.asarray(image, np.uint8), NONE, NONE, "hand_video")
    video.release()


SOURCES: dict[str, Callable[[Path, str], Iterator[Picture]]] = {
    "ham10000": ham10000,
    "pad_ufes20": pad_ufes20,
    "itobos": itobos,
    "normal_skin": normal_skin,
    "hand_video": hand_video,
}


@dataclass(frozen=True)
class Cutout:
    """A real lesion cut from its picture, to be laid on other skin.

    `ratio` (h, w, 3) float32 is its colour over that of the skin around it, `cover` (h, w) float32 its soft
    mask, `box` its bounds xyxy px within the patch.
    """

    ratio: npt.NDArray[np.float32]
    cover: npt.NDArray[np.float32]
    box: tuple[float, float, float, float]


def ham_cutouts(data: Path, limit: int, seed: int = 0) -> list[Cutout]:
    """Cut up to `limit` lesions of the train split out along their polygons."""
    folder = data / "ham10000_224"
    rows = [r for r in _rows(folder) if r["x1"] and r["split"] == "train"]
    whole = [
        r for r in rows if min(float(r["x1"]), float(r["y1"])) > 0.03 and max(float(r["x2"]), float(r["y2"])) < 0.97
    ]
    polygons = _ham_polygons(folder)
    order = np.random.default_rng(seed).permutation(len(whole))[:limit]
    found = []
    for n in order:
        row = whole[int(n)]
        image = _read(folder / row["file"])
        mask = np.zeros(image.shape[:2], np.uint8)
        for polygon in polygons.get(Path(row["file"]).stem, []):
            cv2.fillPoly(mask, [np.round(polygon * image.shape[0]).astype(np.int32)], 255)
        found.append(_cut_out(image, mask))
    return [c for c in found if c is not None]


def pad_cutouts(data: Path) -> list[Cutout]:
    """Cut the lesions of the train split out along their masks."""
    folder = data / "pad_ufes20_phone"
    found = []
    for row in _rows(folder):
        mask_file = folder / "masks" / (Path(row["file"]).stem + ".png")
        if row["split"] == "train" and row["n_boxes"] == "1" and mask_file.exists():
            mask = cv2.imread(str(mask_file), cv2.IMREAD_GRAYSCALE)
            image = _read(folder / row["file"])
            if mask is not None and mask.shape == image.shape[:2]:
                found.append(_cut_out(image, np.asarray(np.where(mask > 0, 255, 0), np.uint8)))
    return [c for c in found if c is not None]


def _cut_out(image: Image, mask: npt.NDArray[np.uint8]) -> Cutout | None:
    """Return the masked lesion with its surroundings' colour divided out; None if it touches the picture's edge."""
    ys, xs = np.nonzero(mask)
    height, width = mask.shape
    if len(xs) < 200 or xs.min() < 3 or ys.min() < 3 or xs.max() > width - 4 or ys.max() > height - 4:
        return None
    side = max(int(xs.max() - xs.min()), int(ys.max() - ys.min())) + 1
    reach = max(3, side // 6)
    ring = (cv2.dilate(mask, np.ones((2 * reach + 1,) * 2, np.uint8)) > 0) & (mask == 0)
    if ring.sum() < 50:
        return None
    skin = np.maximum(np.median(image[ring].astype(np.float32), axis=0), 20.0)
    pad = max(2, side // 12)
    x1, y1 = max(0, int(xs.min()) - pad), max(0, int(ys.min()) - pad)
    x2, y2 = min(width, int(xs.max()) + 1 + pad), min(height, int(ys.max()) + 1 + pad)
    soft = cv2.GaussianBlur(mask[y1:y2, x1:x2].astype(np.float32) / 255, (0, 0), max(1.0, side / 45))
    ratio = np.clip(image[y1:y2, x1:x2].astype(np.float32) / skin, 0.05, 1.8)
    box = (float(xs.min()) - x1, float(ys.min()) - y1, float(xs.max()) + 1 - x1, float(ys.max()) + 1 - y1)
    return Cutout(np.asarray(ratio, np.float32), np.asarray(soft, np.float32), box)


def _ham_polygons(folder: Path) -> dict[str, list[npt.NDArray[np.float32]]]:
    """Read polygons (P, 2), normalised to the centre square that the pictures show (the full frame is 4:3)."""
    polygons: dict[str, list[npt.NDArray[np.float32]]] = {}
    with (folder / "polygons.csv").open(encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            name, _, numbers = line.rstrip().split(",", 2)
            points = np.asarray(numbers.split(), np.float32).reshape(-1, 2)
            points[:, 0] = points[:, 0] * 4 / 3 - 1 / 6
            polygons.setdefault(name, []).append(points)
    return polygons


def _rows(folder: Path) -> list[dict[str, str]]:
    try:
        with (folder / "labels.csv").open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))
    except OSError as error:
        raise SourceError(f"{folder / 'labels.csv'} cannot be read: {error.strerror}") from error


def _read(file: Path) -> Image:
    image = cv2.imread(str(file))
    if image is None:
        raise SourceError(f"{file} is no picture that OpenCV can read")
    return np.asarray(image, np.uint8)


def _boxes(rows: list[list[float]]) -> Boxes:
    return np.asarray(rows, np.float32).reshape(-1, 4)
