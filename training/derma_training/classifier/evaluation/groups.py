"""Columns that people group by: how data sets call them, and which years of age go together."""

from __future__ import annotations

from collections.abc import Sequence

from derma_common.errors import ConfigError
from derma_training.classifier.evaluation.table import Labelled

COLUMNS_OF = {
    "sex": ("sex", "gender"),
    "age": ("age", "age_approx"),
    "site": ("site", "localization", "region", "anatom_site_general", "anatom_site_general_challenge"),
    "fitzpatrick": ("fitzpatrick", "fitzpatrick_scale", "fitspatrick", "skin_type"),
}
INDEPENDENT = ("patient_id", "group", "lesion_id")  # the widest first: pictures of one patient are not independent
AGES = (30, 45, 60, 75)  # where one group of ages ends and the next begins
MISSING = "not stated"
MISSING_WORDS = ("", "unknown", "na", "nan", "none")


def columns_to_compare(rows: Sequence[Labelled], wanted: Sequence[str] | None) -> dict[str, str]:
    """Return name -> column of the table. wanted: names or columns, None for those of COLUMNS_OF that say anything.

    Raises ConfigError for a column that there is not.
    """
    columns = rows[0].columns
    found = {}
    for name in COLUMNS_OF if wanted is None else wanted:
        column = next((c for c in (name, *COLUMNS_OF.get(name, ())) if c in columns), None)
        if column is not None and (wanted is not None or set(values(rows, column)) != {MISSING}):
            found[name] = column
        elif wanted is not None:
            raise ConfigError(f"the table has no column {name!r} to group by; it has {', '.join(columns)}")
    return found


def independent_groups(rows: Sequence[Labelled], column: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the column whose values are drawn as wholes when figures are bootstrapped, and its N values.

    column: None for the first of INDEPENDENT that there is. A picture without a value, or in a table without such
    a column, is a group of its own. Raises ConfigError.
    """
    columns = rows[0].columns
    if column is not None and column not in columns:
        raise ConfigError(f"the table has no column {column!r} to group by; it has {', '.join(columns)}")
    chosen = column or next((c for c in INDEPENDENT if c in columns), "")
    alone = (f"picture {number}" for number in range(len(rows)))
    return chosen, tuple((row.columns[chosen] if chosen else "") or own for row, own in zip(rows, alone, strict=True))


def values(rows: Sequence[Labelled], column: str) -> list[str]:
    """Return the group (N,) of each row by a column, ages in ranges."""
    texts = [row.columns[column] for row in rows]
    if column in COLUMNS_OF["age"]:
        return [_age_group(text) for text in texts]
    words = [text.removesuffix(".0").lower() for text in texts]
    return [MISSING if word in MISSING_WORDS else word for word in words]


def _age_group(text: str) -> str:
    try:
        age = float(text)
    except ValueError:
        return MISSING
    if not age >= 0:  # nor a number that is none
        return MISSING
    starts = (0, *AGES)
    group = sum(age >= end for end in AGES)
    return f"{starts[group]}-{AGES[group] - 1}" if group < len(AGES) else f"{AGES[-1]}+"
