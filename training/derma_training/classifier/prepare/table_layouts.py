"""Data sets whose labels stand in a table: a row a picture, with a word for what it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from derma_common.errors import ConfigError
from derma_training.classifier.manifest import age_of
from derma_training.classifier.pictures import read_picture
from derma_training.classifier.prepare.found import Found, Pictures, Reading
from derma_training.classifier.tables import Record, box_of, first_column, read_records

HELD_OUT = ("val", "valid", "validation", "test")
ONE_HOT_MARKS = ("0", "1", "0.0", "1.0")


@dataclass(frozen=True)
class Columns:
    """Names that a table may use for the same thing, in order of preference, all lower case."""

    file: tuple[str, ...] = ("file", "path", "filename", "image", "image_name", "image_id", "isic_id", "img_id")
    label: tuple[str, ...] = ("label",)
    group: tuple[str, ...] = ("group", "patient_id", "lesion_id")
    split: tuple[str, ...] = ("fold", "split")
    licence: tuple[str, ...] = ("licence", "license", "copyright_license")
    age: tuple[str, ...] = ("age", "age_approx")
    sex: tuple[str, ...] = ("sex", "gender")
    site: tuple[str, ...] = (
        "site", "localization", "location", "region", "anatom_site_general", "anatom_site_general_challenge",
    )  # fmt: skip
    fitzpatrick: tuple[str, ...] = ("fitzpatrick", "fitspatrick", "fitzpatrick_scale")


def read_table(
    folder: Path,
    table: Path,
    reading: Reading,
    words: Mapping[str, str] | None = None,
    columns: Columns = Columns(),
) -> list[Found]:
    """Return the pictures of `table`, looked for below `folder`; a row without a label is left out.

    words: the table's labels in lower case -> ours, None to keep labels as they are. Raises ConfigError: an unknown
    label, missing pictures, a column that is not there.
    """
    records = read_records(table)
    names = {kind: first_column(records[0], getattr(columns, kind)) for kind in Columns.__dataclass_fields__}
    if reading.group_column:
        names["group"] = _required(table, records[0], reading.group_column)
    if not names["file"]:
        raise ConfigError(f"{table} names no pictures: it needs a column {', '.join(columns.file[:3])}…")
    label_of = _labels(table, records, names["label"], reading, names["file"])
    pictures, found, missing = Pictures(folder), [], []
    for line, record in enumerate(records, start=2):
        label = _translated(f"{table} line {line}", label_of(record), words, reading.words)
        if not label:
            continue
        file = pictures.find(record[names["file"]])
        if file is None:
            missing.append(record[names["file"]])
            continue
        found.append(_found(table, line, record, file, label, names))
    if missing and not reading.skip_missing:
        raise ConfigError(
            f"{table}: {len(missing)} of {len(missing) + len(found)} pictures are missing under {folder}, first "
            f"{', '.join(missing[:3])}; --skip-missing leaves them out"
        )
    return found


def _found(table: Path, line: int, record: Record, file: Path, label: str, names: Mapping[str, str]) -> Found:
    said = {kind: record.get(name, "") if name else "" for kind, name in names.items()}
    return Found(
        name=file.stem,
        label=label,
        read=partial(read_picture, file),
        file=file,
        group=said["group"],
        stated=_stated(said["split"]),
        box=box_of(table, line, record),
        licence=said["licence"],
        source=record.get("source", "") if "fold" in record else "",  # of a manifest made before
        age=age_of(said["age"]),
        sex=said["sex"].lower(),
        site=said["site"].lower(),
        fitzpatrick=said["fitzpatrick"].removesuffix(".0"),
    )


def _stated(split: str) -> str:
    if not split:
        return ""
    return "test" if split.lower() in HELD_OUT else "train"


def _labels(
    table: Path, records: Sequence[Record], column: str, reading: Reading, file_column: str
) -> Callable[[Record], str]:
    """Return how to read a record's label: its column, or columns of 0 and 1, one a class."""
    if reading.label_column:
        column = _required(table, records[0], reading.label_column)
    if column:
        return lambda record: record[column]
    classes = [c for c in records[0] if c != file_column and all(r[c] in ONE_HOT_MARKS for r in records)]
    if len(classes) < 2 or any(sum(float(r[c]) for c in classes) > 1 for r in records):
        raise ConfigError(
            f"{table} has no column of labels; name it with --label-column, one of {', '.join(records[0])}"
        )
    return lambda record: next((c.upper() for c in classes if float(record[c])), "")


def _required(table: Path, record: Record, column: str) -> str:
    if column.lower() not in record:
        raise ConfigError(f"{table} has no column {column!r}; it has {', '.join(record)}")
    return column.lower()


def _translated(place: str, label: str, words: Mapping[str, str] | None, own: Mapping[str, str]) -> str:
    """Return our class for a table's word: the user's map first, then the layout's, "" to leave the picture out."""
    if label in own:
        return own[label]
    if words is None or not label:
        return label
    if label.lower() not in words:
        raise ConfigError(f"{place}: {label!r} is none of the labels this layout knows: {', '.join(words)}")
    return words[label.lower()]


def table_in(folder: Path, names: Sequence[str]) -> Path:
    """Return the first of the tables `names` in `folder` or right below it. Raises ConfigError."""
    for name in names:
        candidates = [folder / name, *sorted(folder.glob(f"*/{name}"))]
        found = next((file for file in candidates if file.is_file()), None)
        if found:
            return found
    raise ConfigError(f"{folder} holds none of the tables {', '.join(names)}")
