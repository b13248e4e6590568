"""Which pictures belong together by what is known of them: lesion, patient, ISIC id, tables of duplicates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from derma_common.errors import ConfigError
from derma_training.classifier.prepare.found import Found
from derma_training.classifier.tables import read_records

ISIC_ID = re.compile(r"(ISIC_\d{7})(_downsampled)?")


def known_links(rows: Sequence[Found], tables: Sequence[Path]) -> list[tuple[int, int]]:
    """Return pairs of pictures that belong together: same lesion or patient, same ISIC id, or linked by a table.

    A table links the pictures of a row (ISIC_2020_Training_Duplicates.csv), or of one lesion_id or patient_id
    (HAM10000_metadata.csv), whatever source they came from. A group that is only a number belongs to its source.
    """
    first: dict[str, int] = {}
    links = []
    lesions = _lesions(tables)
    for i, one in enumerate(rows):
        keys = [group_key(one)] if one.group else []
        isic = ISIC_ID.fullmatch(one.name)
        keys += [isic.group(1)] if isic else []
        keys += lesions.get(one.name, [])
        links += [(first.setdefault(key, i), i) for key in keys]
    return links


def _lesions(tables: Sequence[Path]) -> dict[str, list[str]]:
    """Return picture id -> keys it shares with others, from tables of lesions and of duplicates."""
    keys: dict[str, list[str]] = {}
    for table in tables:
        for record in read_records(table):
            names = [v for column, v in record.items() if column.startswith(("image", "file", "isic_id"))]
            if not names:
                raise ConfigError(f"{table} names no pictures: it has the columns {', '.join(record)}")
            for column in ("lesion_id", "patient_id"):
                if record.get(column):
                    keys.setdefault(names[0], []).append(record[column])
            for name in names:
                keys.setdefault(name, []).append(names[0])
    return keys


def group_key(one: Found) -> str:
    """Return what names a picture's lesion or patient across sources."""
    return f"{one.source}/{one.group}" if one.group.isdecimal() else one.group


def group_names(rows: Sequence[Found], component: Sequence[int]) -> list[str]:
    """Return a name for each picture's component: that of its first picture's lesion, else of the picture itself."""
    name_of: dict[int, str] = {}
    taken: Counter[str] = Counter()
    for first in sorted(set(component)):
        one = rows[first]
        name = group_key(one) if one.group else f"{one.source}/{one.name}"
        name_of[first] = f"{name}~{taken[name]}" if taken[name] else name
        taken[name] += 1
    return [name_of[first] for first in component]
