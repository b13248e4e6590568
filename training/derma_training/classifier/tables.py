"""Reading CSV tables of pictures: forgiving of delimiters and of the case of headers, strict about all else."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from derma_common.errors import ConfigError

Box = tuple[float, float, float, float]
Record = Mapping[str, str]

BOX_COLUMNS = ("x1", "y1", "x2", "y2")
BOX_LIST_COLUMN = "boxes_x1y1x2y2_norm"
_DELIMITERS = (",", ";", "\t")


def read_records(table: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV table with lower-case column names and stripped values. Raises ConfigError."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            header = stream.readline()
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=max(_DELIMITERS, key=header.count), restval="")
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            records = [{k: v.strip() for k, v in record.items() if isinstance(v, str)} for record in reader]
    except OSError as error:
        raise ConfigError(f"{table} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{table} is no CSV table in UTF-8: {error}") from error
    if not records:
        raise ConfigError(f"{table} holds no rows")
    return records


def require(table: Path, record: Record, columns: Sequence[str]) -> None:
    """Raise ConfigError when a table lacks some of the columns."""
    missing = [column for column in columns if column not in record]
    if missing:
        raise ConfigError(f"{table} lacks the columns {', '.join(missing)}; it has {', '.join(record)}")


def first_column(record: Record, names: Sequence[str]) -> str:
    """Return the first of `names` that is a column, "" when none is."""
    return next((name for name in names if name in record), "")


def box_of(table: Path, line: int, record: Record) -> Box | None:
    """Return the one lesion box of a record, x1 y1 x2 y2 as shares of width and height, None when it has none.

    Several boxes do not say which one the label means: None too. Raises ConfigError when the box is no box.
    """
    try:
        if all(record.get(c) for c in BOX_COLUMNS):
            boxes = [[float(record[c]) for c in BOX_COLUMNS]]
        else:
            boxes = json.loads(record.get(BOX_LIST_COLUMN) or "[]")
        if len(boxes) != 1:
            return None
        x1, y1, x2, y2 = (float(v) for v in boxes[0])
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{table} line {line}: the lesion box cannot be read: {error}") from error
    if not (0.0 <= x1 < x2 <= 1.0 and 0.0 <= y1 < y2 <= 1.0):
        raise ConfigError(f"{table} line {line}: the lesion box {x1} {y1} {x2} {y2} is none: shares from 0 to 1")
    return x1, y1, x2, y2
