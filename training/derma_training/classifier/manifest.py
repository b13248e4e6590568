"""Which pictures the classifier sees, what they show, and which part each belongs to.

A lesion (or patient) lies in one part only: a picture whose group also appears in a test split is
kept out of training whatever table names it. `test` rows are for the final figures; `calibration`
rows, carved out of the training split by group, choose the checkpoint and fit the temperature.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from derma_common.errors import ConfigError

Part = Literal["train", "calibration", "test"]
Box = tuple[float, float, float, float]

CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")  # ISIC 2019, in csv order
CALIBRATION_SHARE = 0.08


@dataclass(frozen=True)
class Row:
    """One labelled picture; `box` is its lesion, x1 y1 x2 y2 as shares of width and height."""

    file: Path
    label: str
    group: str
    part: Part
    domain: str
    box: Box | None = None


@dataclass(frozen=True)
class Source:
    """A folder with `labels.csv` and how to read it; an empty `group_column` makes each picture its own group."""

    folder: str
    domain: str
    label_column: str = "label"
    group_column: str = ""
    aliases: Mapping[str, str] = field(default_factory=dict)  # the table's word for a class, if not ours


SOURCES = (
    Source("ham10000_224", "dermoscopy", label_column="label8_isic2019", group_column="lesion_id"),
    Source("isic_uda1_cc0", "dermoscopy"),
    Source("isic9_extra_180", "dermoscopy"),
    Source(
        "pad_ufes20_phone",
        "phone",
        group_column="patient_id",
        aliases={"ACK": "AK", "NEV": "NV", "SEK": "BKL"},
    ),
)


def read_manifest(data: Path, sources: Sequence[Source] = SOURCES) -> list[Row]:
    """Return the rows of all sources under `data`, each group in one part. Raises ConfigError."""
    lesions = known_lesions(data / "label_tables" / "HAM10000_metadata.csv")
    rows = [row for source in sources for row in read_source(data / source.folder, source, lesions)]
    tested = {row.group for row in rows if row.part == "test"}
    return [row for row in rows if row.part == "test" or row.group not in tested]


def read_source(folder: Path, source: Source, lesions: Mapping[str, str]) -> list[Row]:
    """Return the rows of `folder/labels.csv`; a row without label is left out. Raises ConfigError."""
    table = folder / "labels.csv"
    rows = []
    for line, record in enumerate(_records(table, source), start=2):
        word = record[source.label_column]
        if not word:
            continue
        label = source.aliases.get(word, word)
        if label not in CLASSES:
            raise ConfigError(f"{table} line {line}: {word!r} is none of the classes {', '.join(CLASSES)}")
        file = folder / record["file"]
        if not file.is_file():
            raise ConfigError(f"{table} line {line}: there is no file {file}")
        group = record[source.group_column] if source.group_column else lesions.get(file.stem, file.stem)
        part = part_of(group, record.get("split", "train"))
        rows.append(Row(file, label, group, part, source.domain, _box_of(record)))
    return rows


def part_of(group: str, split: str) -> Part:
    """Return the part of a group: `test` for the held-out split, else train or calibration by its hash."""
    if split == "val":
        return "test"
    draw = int.from_bytes(hashlib.sha256(group.encode()).digest()[:4], "big") / 2**32
    return "calibration" if draw < CALIBRATION_SHARE else "train"


def known_lesions(table: Path) -> dict[str, str]:
    """Return picture id -> lesion id, so that another copy of a lesion is recognised; empty without the table."""
    if not table.is_file():
        return {}
    with table.open(newline="", encoding="utf-8") as stream:
        return {record["image_id"]: record["lesion_id"] for record in csv.DictReader(stream)}


def _records(table: Path, source: Source) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            columns = set(reader.fieldnames or ())
            records = list(reader)
    except OSError as error:
        raise ConfigError(f"{table} cannot be read: {error.strerror}") from error
    missing = {"file", source.label_column, *filter(None, [source.group_column])} - columns
    if missing:
        raise ConfigError(f"{table} lacks the columns {', '.join(sorted(missing))}")
    return records


def _box_of(record: Mapping[str, str]) -> Box | None:
    """Return the one lesion box of a record; several boxes do not say which one the label means."""
    if record.get("x1"):
        return (float(record["x1"]), float(record["y1"]), float(record["x2"]), float(record["y2"]))
    boxes = json.loads(record.get("boxes_x1y1x2y2_norm") or "[]")
    if len(boxes) != 1:
        return None
    x1, y1, x2, y2 = boxes[0]
    return (float(x1), float(y1), float(x2), float(y2))
