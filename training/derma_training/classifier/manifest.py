"""The manifest: one CSV that says which pictures there are, what they show, and which fold each belongs to.

    file,label,group,fold,licence,source,x1,y1,x2,y2,age,sex,site,fitzpatrick

`file` is relative to the CSV. `group` names what must stay together (a lesion, a patient, a set of near-duplicates);
all of it lies in one fold: `test`, or a number. Training on fold F holds fold F back to choose the checkpoint and to
fit the temperature, and never sees `test`. `x1 … y2` (shares of width and height) and what follows may be empty.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from derma_common.errors import ConfigError
from derma_training.classifier.licences import normalised
from derma_training.classifier.tables import Box, Record, box_of, read_records, require

Part = Literal["train", "calibration", "test"]

CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")  # ISIC 2019, in csv order
COLUMNS = (
    "file", "label", "group", "fold", "licence", "source", "x1", "y1", "x2", "y2", "age", "sex", "site", "fitzpatrick",
)  # fmt: skip
TEST = "test"


@dataclass(frozen=True)
class Row:
    """One labelled picture; `box` is its lesion, x1 y1 x2 y2 as shares of width and height; age in years."""

    file: Path
    label: str
    group: str
    fold: str
    licence: str = "unknown"
    source: str = ""
    box: Box | None = None
    age: float | None = None
    sex: str = ""
    site: str = ""
    fitzpatrick: str = ""


@dataclass(frozen=True)
class Manifest:
    """The rows of a manifest and its classes, in the order of a network's outputs."""

    rows: tuple[Row, ...]
    classes: tuple[str, ...]

    def part(self, part: Part, fold: int = 0) -> list[Row]:
        """Return the rows of a part when `fold` is held back for calibration."""
        return [row for row in self.rows if _part_of(row, str(fold)) == part]

    def check_trainable(self, fold: int = 0) -> None:
        """Raise ConfigError unless every class has pictures to learn from, and the calibration part is not empty."""
        if len(self.classes) < 2:
            raise ConfigError(f"all pictures are {self.classes[0]}: a classifier needs at least two classes")
        learned = {row.label for row in self.part("train", fold)}
        missing = [name for name in self.classes if name not in learned]
        if missing:
            raise ConfigError(
                f"no picture to learn {', '.join(missing)} from: all are held back by fold {fold} or test"
            )
        if not self.part("calibration", fold):
            folds = sorted({row.fold for row in self.rows} - {TEST})
            raise ConfigError(f"there is no fold {fold} to hold back for calibration; there are {', '.join(folds)}")


def _part_of(row: Row, held_back: str) -> Part:
    if row.fold == TEST:
        return "test"
    return "calibration" if row.fold == held_back else "train"


def classes_of(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the classes in order: ISIC 2019's when all labels are among its nine, else the alphabet's."""
    found = set(labels)
    return tuple(c for c in CLASSES if c in found) if found <= set(CLASSES) else tuple(sorted(found))


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest. Raises ConfigError: unreadable, picture missing, a group in two folds."""
    records = read_records(path)
    require(path, records[0], ("file", "label", "group", "fold"))
    rows = tuple(_row(path, line, record) for line, record in enumerate(records, start=2))
    check_files(path, [row.file for row in rows])
    check_folds(path, rows)
    return Manifest(rows, classes_of(row.label for row in rows))


def check_files(table: Path, files: Sequence[Path]) -> None:
    """Raise ConfigError when files that a table names do not exist."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        first = ", ".join(str(file) for file in missing[:3])
        raise ConfigError(f"{table}: {len(missing)} of {len(files)} pictures are missing, first {first}")


def check_folds(table: Path, rows: Sequence[Row]) -> None:
    """Raise ConfigError when a group lies in two folds."""
    fold_of: dict[str, str] = {}
    for row in rows:
        known = fold_of.setdefault(row.group, row.fold)
        if known != row.fold:
            raise ConfigError(
                f"{table}: {row.group} lies in the folds {known} and {row.fold}; pictures of one lesion or patient "
                "belong together, or the figures flatter: make the manifest with `derma data prepare`"
            )


def _row(table: Path, line: int, record: Record) -> Row:
    for column in ("file", "label", "group", "fold"):
        if not record[column]:
            raise ConfigError(f"{table} line {line}: {column} is empty")
    if record["fold"] != TEST and not record["fold"].isdecimal():
        raise ConfigError(f"{table} line {line}: fold {record['fold']!r} is neither a number nor {TEST!r}")
    return Row(
        file=table.parent / record["file"],
        label=record["label"],
        group=record["group"],
        fold=record["fold"],
        licence=normalised(record.get("licence", "")),
        source=record.get("source", ""),
        box=box_of(table, line, record),
        age=age_of(record.get("age", "")),
        sex=record.get("sex", ""),
        site=record.get("site", ""),
        fitzpatrick=record.get("fitzpatrick", ""),
    )


def age_of(words: str) -> float | None:
    """Return an age in years, None when the table knows none (empty, "unknown", "NA")."""
    try:
        age = float(words)
    except ValueError:
        return None
    return age if 0.0 <= age <= 120.0 else None


def write_manifest(rows: Sequence[Row], path: Path) -> None:
    """Write a manifest; the rows' files must lie below its folder."""
    draft = path.with_suffix(".part")
    with draft.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            box = [f"{v:.4f}" for v in row.box] if row.box else [""] * 4
            file = row.file.relative_to(path.parent).as_posix()
            age = "" if row.age is None else f"{row.age:g}"
            known = [file, row.label, row.group, row.fold, row.licence, row.source]
            writer.writerow([*known, *box, age, row.sex, row.site, row.fitzpatrick])
    draft.replace(path)
