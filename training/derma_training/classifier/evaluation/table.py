"""Labelled pictures from a CSV: one row a picture, with its label, its lesion box if any, and columns to group by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from derma_common.errors import ConfigError
from derma_common.recordings import PICTURE_SUFFIXES
from derma_training.classifier.tables import Box, Record, box_of, first_column, read_records

FILE_COLUMNS = ("file", "image", "image_id", "image_name", "path", "filename")
LABEL_COLUMN = "label"


@dataclass(frozen=True)
class Labelled:
    """One row: the picture's file and its name in the table, the label as written there, all its columns.

    box: the lesion, x1 y1 x2 y2, as shares of width and height.
    """

    file: Path
    name: str
    label: str
    box: Box | None
    columns: Record


def read_table(
    table: Path,
    *,
    label_column: str | None = None,
    images: Path | None = None,
    where: Sequence[tuple[str, str]] = (),
) -> list[Labelled]:
    """Return the rows of `table` for which every (column, value) of `where` holds; a row may have an empty label.

    The picture is named by a column `file` (or image, image_id, …), relative to the table's folder or to `images`,
    with or without its suffix. The label is in `label_column`, else in `label`, else in columns of 0 and 1, one
    a class, as in the ground truths of ISIC. Raises ConfigError.
    """
    records = read_records(table)
    columns = list(records[0])
    file_column = first_column(records[0], FILE_COLUMNS)
    if not file_column:
        raise ConfigError(f"{table} names no pictures: it needs a column {' or '.join(FILE_COLUMNS[:3])}")
    for column, _ in where:
        if column not in columns:
            raise ConfigError(f"{table} has no column {column!r}; it has {', '.join(columns)}")
    chosen = [(line, r) for line, r in enumerate(records, start=2) if all(r[c] == v for c, v in where)]
    if not chosen:
        raise ConfigError(f"{table} has no row with {' and '.join(f'{c}={v}' for c, v in where)}")
    classes = _one_hot_columns(records, file_column) if not (label_column or LABEL_COLUMN in columns) else []
    if not classes and (label_column or LABEL_COLUMN) not in columns:
        raise ConfigError(
            f"{table} has no column {label_column or LABEL_COLUMN!r}; say which holds the label with --label-column: "
            f"it has {', '.join(columns)}"
        )
    folder = images or table.parent
    rows = []
    for line, record in chosen:
        name = record[file_column]
        if not name:
            raise ConfigError(f"{table} line {line}: the column {file_column} is empty")
        label = _one_hot(record, classes) if classes else record[label_column or LABEL_COLUMN]
        rows.append(Labelled(picture_file(folder, name), name, label, box_of(table, line, record), record))
    return rows


def picture_file(folder: Path, name: str) -> Path:
    """Return where the picture `name` lies: in `folder` or in its folder `images`, with or without a suffix."""
    suffixes = ("",) if Path(name).suffix.lower() in PICTURE_SUFFIXES else ("", *PICTURE_SUFFIXES)
    candidates = [place / f"{name}{suffix}" for place in (folder, folder / "images") for suffix in suffixes]
    return next((file for file in candidates if file.is_file()), folder / name)


def _one_hot_columns(records: Sequence[Record], file_column: str) -> list[str]:
    """Return the columns that hold only 0 and 1, if every row has at most one 1."""
    marks = {"0", "1", "0.0", "1.0"}
    names = [c for c in records[0] if c != file_column and all(r[c] in marks for r in records)]
    once = all(sum(float(r[c]) for c in names) <= 1 for r in records)
    return names if once and len(names) > 1 else []


def _one_hot(record: Record, classes: Sequence[str]) -> str:
    return next((name for name in classes if float(record[name])), "")
