"""People's operating points, to be shown beside a classifier's curve as Esteva et al. 2017 (Fig. 3) do."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from derma_common.errors import ConfigError
from derma_common.taxonomy.vocabulary import plain
from derma_training.classifier.evaluation.figures import SUSPICIOUS
from derma_training.classifier.metrics_binary import Curve

COLUMNS = ("name", "sensitivity", "specificity")


@dataclass(frozen=True)
class Reader:
    """One person: shares of the ill and of the well that were called right. target: a class, "" for SUSPICIOUS."""

    name: str
    sensitivity: float
    specificity: float
    target: str


def read_readers(table: Path) -> list[Reader]:
    """Read a CSV with the columns name, sensitivity, specificity and maybe target, a class. Raises ConfigError."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            records = list(csv.DictReader(stream, restval=""))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{table} cannot be read: {error}") from error
    if not records or not set(COLUMNS) <= set(records[0]):
        raise ConfigError(f"{table} needs a header and rows with the columns {', '.join(COLUMNS)}")
    return [_reader(table, line, record) for line, record in enumerate(records, start=2)]


def _reader(table: Path, line: int, record: dict[str, str]) -> Reader:
    try:
        sensitivity, specificity = (float(record[column]) for column in COLUMNS[1:])
    except ValueError as error:
        raise ConfigError(f"{table} line {line}: {error}") from error
    if not (0.0 <= sensitivity <= 1.0 and 0.0 <= specificity <= 1.0):
        raise ConfigError(f"{table} line {line}: sensitivity and specificity are shares from 0 to 1")
    return Reader(record["name"], sensitivity, specificity, (record.get("target") or "").strip())


def by_target(readers: Sequence[Reader], targets: Sequence[str]) -> dict[str, list[Reader]]:
    """Return target -> readers; `targets` are what can be told from the rest in a table. Raises ConfigError."""
    names = {plain(name): name for name in targets}
    found: dict[str, list[Reader]] = {}
    for reader in readers:
        target = names.get(plain(reader.target or SUSPICIOUS))
        if target is None:
            raise ConfigError(
                f"reader {reader.name!r} looks for {reader.target or SUSPICIOUS!r}, which this table cannot show; it "
                f"can show {', '.join(targets) or 'nothing: all its pictures are of one class'}"
            )
        found.setdefault(target, []).append(reader)
    return found


def against(readers: Sequence[Reader], points: Curve) -> dict[str, Any]:
    """Return the mean reader ± standard deviation, and how many lie below the classifier's curve.

    A reader is below when the classifier, at a threshold where its specificity is at least the reader's, finds more.
    """
    specificity = 1.0 - points.fall_out
    below = sum(points.sensitivity[specificity >= r.specificity].max() > r.sensitivity for r in readers)
    figures: dict[str, Any] = {"n": len(readers), "below_curve": int(below)}
    for column in COLUMNS[1:]:
        values = [getattr(reader, column) for reader in readers]
        figures[column] = {"mean": float(np.mean(values)), "sd": float(np.std(values, ddof=min(1, len(values) - 1)))}
    return figures
