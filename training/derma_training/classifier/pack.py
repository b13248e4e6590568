"""All pictures of a training run in one array on disk: decoded once, read without workers.

A pack is a directory: `images.npy` (N, 224, 224, 3) uint8 BGR, mapped when opened, and `items.json`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.errors import ConfigError
from derma_common.preprocess import Image, cut, square_around
from derma_training.classifier.augment import moved_inside
from derma_training.classifier.manifest import Box, Part, Row, read_manifest
from derma_training.classifier.unknowns import SIZE_PX, unknowns

IMAGES_FILE = "images.npy"
ITEMS_FILE = "items.json"
CONTEXT_MARGIN = 0.6  # kept around a phone photograph's box: more than the crop's, so the margin can jitter


@dataclass(frozen=True)
class Item:
    """What a packed picture shows; `box` is its lesion, x1 y1 x2 y2 px of the packed picture."""

    label: str
    part: Part
    domain: str
    group: str
    box: Box | None = None


@dataclass(frozen=True)
class Pack:
    """Packed pictures (N, 224, 224, 3) uint8 BGR and what each shows."""

    images: npt.NDArray[np.uint8]
    items: tuple[Item, ...]

    def where(self, part: Part, domain: str | None = None) -> list[int]:
        """Return the indices of a part, of one domain or of all."""
        return [i for i, item in enumerate(self.items) if item.part == part and domain in (None, item.domain)]


def pack_row(row: Row) -> tuple[Image, Item]:
    """Read a row's picture as (224, 224, 3) uint8 BGR: phone photographs around their box, others their centre square.

    Raises ConfigError when the file is no picture.
    """
    image = cv2.imread(str(row.file), cv2.IMREAD_COLOR)
    if image is None:
        raise ConfigError(f"{row.file} is no picture that OpenCV can read")
    rows, columns = image.shape[:2]
    side = min(rows, columns)
    left, top = (columns - side) // 2, (rows - side) // 2
    square = (left, top, left + side, top + side)
    box = _scaled(row.box, columns, rows) if row.box else None
    if box and row.domain == "phone":
        square = moved_inside(square_around(box, CONTEXT_MARGIN), columns, rows)
    if box:
        box = _moved(box, square)
    return cut(np.asarray(image, dtype=np.uint8), square, SIZE_PX), Item(
        row.label, row.part, row.domain, row.group, box
    )


def _scaled(box: Box, width: int, height: int) -> Box:
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height


def _moved(box: Box, square: tuple[int, int, int, int]) -> Box:
    """Map a box from px of the photograph to px of the square that was cut from it."""
    scale = SIZE_PX / (square[2] - square[0])
    x1, y1, x2, y2 = ((v - square[i % 2]) * scale for i, v in enumerate(box))
    return x1, y1, x2, y2


def write_pack(data: Path, directory: Path) -> Pack:
    """Pack all sources and unknowns under `data` into `directory`. Raises ConfigError."""
    rows, others = read_manifest(data), list(unknowns(data))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ITEMS_FILE).unlink(missing_ok=True)  # written last: a pack cut short is none
    shape = (len(rows) + len(others), SIZE_PX, SIZE_PX, 3)
    images = np.lib.format.open_memmap(directory / IMAGES_FILE, mode="w+", dtype=np.uint8, shape=shape)
    items = []
    for i, row in enumerate(rows):
        images[i], item = pack_row(row)
        items.append(item)
    for i, other in enumerate(others, start=len(rows)):
        images[i] = other.image
        items.append(Item("UNK", other.part, other.kind, other.group))
    images.flush()
    (directory / ITEMS_FILE).write_text(json.dumps([asdict(item) for item in items]), encoding="utf-8")
    return Pack(images, tuple(items))


def open_pack(directory: Path) -> Pack:
    """Open a pack, its pictures mapped from disk. Raises ConfigError."""
    try:
        images = np.load(directory / IMAGES_FILE, mmap_mode="r")
        records = json.loads((directory / ITEMS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{directory} is no pack of pictures ({error}); make one with the command pack") from error
    items = tuple(Item(**{**r, "box": tuple(r["box"]) if r["box"] else None}) for r in records)
    return Pack(images, items)
