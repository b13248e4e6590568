"""Sheets of pictures: what a detector hit, missed and wrongly found, for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.boxes import area, match
from derma_common.errors import ResourceError
from derma_common.preprocess import Image, cut, square_around
from derma_training.detector.evaluate.looking import Seen
from derma_training.detector.evaluate.matching import IOU_THRESHOLDS, match_picture

CELL_PX, COLUMNS, ROWS = 160, 8, 6
MARGIN = 1.0  # of the box's longer side, around it
BGR = tuple[int, int, int]
TRUTH: BGR = (60, 200, 60)
FOUND: BGR = (40, 120, 240)
INK: BGR = (255, 255, 255)


@dataclass(frozen=True, eq=False)
class Cell:
    """A box to show: what it is ordered by, its caption, and whether it was found."""

    seen: Seen
    box: npt.NDArray[np.float32]  # (4,) xyxy px
    rank: float
    caption: str
    found: bool


def draw_gallery(seen: Sequence[Seen], threshold: float, folder: Path) -> list[str]:
    """Write hits.jpg (least sure first), misses.jpg (largest first) and false-positives.jpg (surest first).

    Green is labelled, orange was found. Returns a line for each sheet; a kind without cells has none. Raises
    ResourceError.
    """
    sheets: dict[str, list[Cell]] = {"hits": [], "misses": [], "false-positives": []}
    for one in seen:
        _sort(one, threshold, sheets)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot write pictures into {folder}: {error.strerror}") from error
    said = []
    for name, cells in sheets.items():
        chosen = sorted(cells, key=lambda cell: cell.rank)[: COLUMNS * ROWS]
        if not chosen:
            continue
        path = folder / f"{name}.jpg"
        if not cv2.imwrite(str(path), _sheet(chosen)):
            raise ResourceError(f"cannot write the picture {path}")
        said.append(f"{path}: {len(chosen)} of {len(cells)}")
    return said


def _sort(one: Seen, threshold: float, sheets: dict[str, list[Cell]]) -> None:
    shown = one.found.scores > threshold
    boxes, scores = one.found.boxes[shown], one.found.scores[shown]
    truth = one.picture.boxes
    pairs = dict(match(boxes, truth, IOU_THRESHOLDS[0]))
    _, spared = match_picture(boxes, truth, one.picture.ignored)
    for i, (box, score) in enumerate(zip(boxes, scores, strict=True)):
        if i in pairs:
            sheets["hits"].append(Cell(one, box, float(score), f"{score:.2f}", True))
        elif not spared[0, i]:
            sheets["false-positives"].append(Cell(one, box, -float(score), f"{score:.2f}", True))
    for j in set(range(len(truth))) - set(pairs.values()):
        size = float(area(truth[j : j + 1])[0])
        sheets["misses"].append(Cell(one, truth[j], -size, f"{size**0.5:.0f} px", False))


def _sheet(cells: Sequence[Cell]) -> Image:
    rows = -(-len(cells) // COLUMNS)
    sheet = np.zeros((rows * CELL_PX, min(len(cells), COLUMNS) * CELL_PX, 3), np.uint8)
    last, image = None, sheet
    for n in sorted(range(len(cells)), key=lambda n: str(cells[n].seen.picture.path)):  # decode each picture once
        if cells[n].seen is not last:
            last, image = cells[n].seen, cells[n].seen.picture.image()
        y, x = n // COLUMNS * CELL_PX, n % COLUMNS * CELL_PX
        sheet[y : y + CELL_PX, x : x + CELL_PX] = _drawn(image, cells[n])
    return sheet


def _drawn(image: Image, cell: Cell) -> Image:
    square = square_around([float(v) for v in cell.box], MARGIN)
    tile = cut(image, square, CELL_PX)
    scale = CELL_PX / (square[2] - square[0])
    boxes = [(box, TRUTH) for box in cell.seen.picture.boxes] + ([(cell.box, FOUND)] if cell.found else [])
    for box, colour in boxes:
        x1, y1, x2, y2 = (round(float(v - square[i % 2]) * scale) for i, v in enumerate(box))
        cv2.rectangle(tile, (x1, y1), (x2, y2), colour, 1)
    name = cell.seen.picture.path.stem[-14:].encode("ascii", "replace").decode()
    cv2.putText(tile, f"{cell.caption} {name}", (3, CELL_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 2)
    cv2.putText(tile, f"{cell.caption} {name}", (3, CELL_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.36, INK, 1)
    return tile
