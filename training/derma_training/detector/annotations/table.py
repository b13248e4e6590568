"""Tables (CSV) of boxes: a row for each picture with a list of boxes, or a row for each box with its corners.

Recognised columns: the picture `file` (or image, filename, path, image_id …); a list `boxes…` / `ignore_boxes…` as
JSON `[[x1, y1, x2, y2, …], …]`; or corners x1 y1 x2 y2 (or xmin ymin xmax ymax, left top right bottom); `label` or
`class`, `width`, `height`, `split`, `source`, `patient_id` or `lesion_id`. Coordinates are px, or shares of the picture
where the column's name says `norm` or most numbers are no larger than a share.
"""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from derma_common.errors import SourceError
from derma_training.detector.annotations.annotated import Box, Label
from derma_training.detector.annotations.report import Problem, Report
from derma_training.detector.annotations.tree import Tree

PICTURE_COLUMNS = ("file", "image", "filename", "file_name", "path", "image_path", "image_id", "img_id", "image_name")
CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
NO_LESION = ("", "none", "no lesion", "no_lesion", "normal", "healthy", "background", "negative", "0")
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_NAN = float("nan")
Row = dict[str, str]


@dataclass(frozen=True)
class Table:
    """A table that holds boxes: which column is what."""

    file: Path
    rows: list[Row]
    picture: str
    boxes: str | None  # the column of lists, or
    corners: tuple[str, ...]  # the four columns of one box
    ignored: str | None
    normalised: bool


def load(file: Path, report: Report) -> Table | None:
    """Return the table of a CSV file, None when it holds no boxes. Raises SourceError when it cannot be read."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = [{str(k).strip().lower(): v or "" for k, v in row.items()} for row in csv.DictReader(lines)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{file} cannot be read as a table: {error}") from error
    columns = list(rows[0]) if rows else []
    picture = next((name for name in PICTURE_COLUMNS if name in columns), None)
    boxes = next((name for name in columns if name.startswith("boxes")), None)
    ignored = next((name for name in columns if name.startswith("ignore")), None)
    corners = next((names for names in CORNERS if set(names) <= set(columns)), ())
    if picture is None or not (boxes or corners):
        if picture is not None:
            report.add(Problem.TABLE, str(file))
        return None
    table = Table(file, rows, picture, boxes, corners, ignored, False)
    named = (boxes or "").split("_")
    if "norm" in named or "px" in named:
        return replace(table, normalised="norm" in named)
    numbers = np.abs([v for row in rows for box in _boxes(row, table) for v in box if math.isfinite(v)])
    return replace(table, normalised=bool(len(numbers)) and bool(np.median(numbers) <= 1))


def class_names(tables: list[Table]) -> tuple[str, ...]:
    """Return the names of all boxes' classes, sorted; without any it is ("lesion",)."""
    return tuple(sorted({_kind(row) for table in tables for row in table.rows if _boxes(row, table)})) or ("lesion",)


def _kind(row: Row) -> str:
    return (row.get("class") or row.get("label") or row.get("category") or row.get("name") or "lesion").strip()


def read(table: Table, names: tuple[str, ...], tree: Tree, report: Report) -> Iterator[Label]:
    """Yield a label for each picture of a table."""
    by_picture: dict[str, list[Row]] = defaultdict(list)
    for row in table.rows:
        by_picture[row[table.picture].strip()].append(row)
    for name, rows in by_picture.items():
        where, first = f"{tree.shown(table.file)}: {name}", rows[0]
        picture = tree.picture(name, table.file.parent)
        if picture is None:
            report.add(Problem.NO_PICTURE, where)
            continue
        boxes = [(box, names.index(_kind(row))) for row in rows for box in _boxes(row, table)]
        if not boxes and not all(_says_none(row, table) for row in rows):
            report.add(Problem.UNKNOWN, where)
            continue
        yield Label(
            picture,
            where,
            [box for box, _ in boxes],
            [kind for _, kind in boxes],
            _list(first.get(table.ignored or "", "")),
            table.normalised,
            _stated(first),
            first.get("source", "").strip() or tree.source(table.file),
            first.get("patient_id", "") or first.get("lesion_id", ""),
            _SPLITS.get(first.get("split", "").strip().lower(), tree.split(picture)),
        )


def _says_none(row: Row, table: Table) -> bool:
    """Tell whether a row without a box says that there is no lesion, rather than nothing."""
    if table.boxes is not None:
        return row[table.boxes].strip() == "[]" or row.get("n_boxes", "").strip() == "0"
    return row.get("n_boxes", "").strip() == "0" or _named(row) in NO_LESION


def _named(row: Row) -> str:
    return _kind(row).lower() if any(row.get(k) for k in ("class", "label", "category", "name")) else ""


def _boxes(row: Row, table: Table) -> list[Box]:
    if table.boxes is not None:
        return _list(row[table.boxes])
    texts = [row[name].strip() for name in table.corners]
    return [_four(texts)] if any(texts) else []


def _list(text: str) -> list[Box]:
    """Read `[[x1, y1, x2, y2, …], …]`; what is no such list is a box that is no number, which will be reported."""
    if not text.strip():
        return []
    try:
        rows = json.loads(text)
    except ValueError:
        rows = None
    if not isinstance(rows, list):
        return [(_NAN, _NAN, _NAN, _NAN)]
    return [_four(row[:4]) if isinstance(row, list) else (_NAN, _NAN, _NAN, _NAN) for row in rows]


def _four(values: list[str]) -> Box:
    try:
        x1, y1, x2, y2 = (float(v) for v in values)
    except (TypeError, ValueError):
        return (_NAN, _NAN, _NAN, _NAN)
    return x1, y1, x2, y2


def _stated(row: Row) -> tuple[int, int] | None:
    try:
        width, height = int(float(row.get("width", ""))), int(float(row.get("height", "")))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None
