"""Patches of skin without a lesion, cut out of pictures and videos: what data can say of the class UNK.

A folder may hold labels.csv with the spots to keep away from (`boxes_px_x1y1x2y2_kind`, `ignore_boxes_px`: px).
Neighbours in name, and frames of a video, show the same skin: they share a group.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from derma_common.errors import ConfigError
from derma_common.preprocess import Image, cut
from derma_common.recordings import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from derma_training.classifier.crops import Square
from derma_training.classifier.pictures import read_picture
from derma_training.classifier.prepare.found import Found, Reading
from derma_training.classifier.tables import read_records

UNK = "UNK"
PATCH_PX = 224
PATCHES_PER_PICTURE = 8
FRAMES_PER_PATCH = 6  # of a video
NEIGHBOURS = 6  # pictures in a row that share a group
SMALLEST_PX, LARGEST_PX = 48, 600
TRIES = 40  # random squares tried for each that is wanted


def read_background(folder: Path, reading: Reading) -> list[Found]:
    """Return patches (224, 224, 3) of all pictures and videos below `folder`. Raises ConfigError if there are none."""
    rng = np.random.default_rng(reading.seed)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    pictures = [p for p in files if p.suffix.lower() in PICTURE_SUFFIXES]
    videos = [p for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    if not pictures and not videos:
        raise ConfigError(f"{folder} holds no pictures and no videos")
    spots = _spots_of(folder)
    found = []
    for n, file in enumerate(pictures):
        image, group = read_picture(file), f"{folder.name}-{n // NEIGHBOURS}"
        squares = free_squares(image, spots.get(file.name, []), rng, PATCHES_PER_PICTURE)
        for k, square in enumerate(squares):
            found.append(Found(f"{file.stem}-{k}", UNK, partial(_patch_of, file, square), group=group))
    for file in videos:
        found += list(_frames(file, rng))
    return found


def _spots_of(folder: Path) -> dict[str, list[list[float]]]:
    """Return file name -> boxes (x1, y1, x2, y2) px to keep away from, as labels.csv has them."""
    table = folder / "labels.csv"
    if not table.is_file():
        return {}
    spots = {}
    for record in read_records(table):
        boxes = json.loads(record.get("boxes_px_x1y1x2y2_kind") or "[]")
        ignored = json.loads(record.get("ignore_boxes_px") or "[]")
        spots[Path(record["file"]).name] = [box[:4] for box in (*boxes, *ignored)]
    return spots


def _frames(file: Path, rng: np.random.Generator) -> Iterator[Found]:
    video = cv2.VideoCapture(str(file))
    number = 0
    while video.grab():
        if number % FRAMES_PER_PATCH == 0:
            frame = np.asarray(video.retrieve()[1], dtype=np.uint8)
            patch = cut(frame, random_square(frame, rng), PATCH_PX)
            yield Found(f"{file.stem}-{number}", UNK, partial(_given, patch), group=file.stem)
        number += 1
    video.release()


def _given(image: Image) -> Image:
    return image


def _patch_of(file: Path, square: Square) -> Image:
    return cut(read_picture(file), square, PATCH_PX)


def free_squares(image: Image, spots: Sequence[Sequence[float]], rng: np.random.Generator, wanted: int) -> list[Square]:
    """Return up to `wanted` squares (x1, y1, x2, y2) px of image that touch none of the spots (x1, y1, x2, y2)."""
    found: list[Square] = []
    for _ in range(TRIES * wanted):
        x1, y1, x2, y2 = random_square(image, rng)
        if all(x2 <= s[0] or s[2] <= x1 or y2 <= s[1] or s[3] <= y1 for s in spots):
            found.append((x1, y1, x2, y2))
        if len(found) == wanted:
            break
    return found


def random_square(image: Image, rng: np.random.Generator) -> Square:
    """Return a square inside image (H, W, 3), its side log-uniform in SMALLEST_PX … LARGEST_PX."""
    rows, columns = image.shape[:2]
    high = min(LARGEST_PX, rows, columns)
    side = int(np.exp(rng.uniform(np.log(min(SMALLEST_PX, high)), np.log(high))))
    x1, y1 = int(rng.integers(0, columns - side + 1)), int(rng.integers(0, rows - side + 1))
    return x1, y1, x1 + side, y1 + side
