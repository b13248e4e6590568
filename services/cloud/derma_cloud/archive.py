"""`derma archive`: ask the archive in SQL. The view `findings` has a row for each finding, `day` among its columns."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from derma_cloud.files import listed, reading
from derma_common.errors import ConfigError, ResourceError, UserError

BY_DAY = "SELECT day, site, count(*) AS findings, count(DISTINCT run) AS runs FROM findings GROUP BY ALL ORDER BY ALL"
WIDEST = 48  # characters of a column on a screen
Rows = list[tuple[Any, ...]]


def query(directory: Path, sql: str) -> tuple[list[str], Rows]:
    """Return the columns and rows that answer SQL over the view `findings`. Raises ResourceError and ConfigError."""
    files, _ = listed(directory) if directory.is_dir() else ([], [])
    if not files:
        raise ResourceError(f"there are no findings in {directory}; `derma serve ingest --out {directory}` stores them")
    names = ", ".join("'{}'".format(str(directory / file.path).replace("'", "''")) for file in files)
    with duckdb.connect() as db:
        try:
            db.execute(f"CREATE VIEW findings AS SELECT * FROM read_parquet([{names}], hive_partitioning = true)")
            answer = db.execute(sql)
            return [str(column[0]) for column in answer.description or ()], answer.fetchall()
        except duckdb.IOException as error:
            raise ResourceError(f"the archive {directory} cannot be read: {' '.join(str(error).split())}") from error
        except duckdb.Error as error:
            raise ConfigError(f"the query does not work: {' '.join(str(error).split())}") from error


def table(columns: Sequence[str], rows: Rows) -> str:
    """Return rows as aligned columns."""
    texts = [list(columns), *([_shown(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(columns))]
    return "\n".join("  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in texts)


def _shown(value: object) -> str:
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def main() -> int:
    """Print the answer to a query."""
    parser = argparse.ArgumentParser(prog="derma archive", description="Ask the archive of findings in SQL.")
    parser.add_argument("directory", type=Path, help="the folder that `derma serve ingest --out` fills")
    parser.add_argument("sql", nargs="?", default=BY_DAY, help='"SELECT top, count(*) FROM findings GROUP BY 1"')
    parser.add_argument("--json", action="store_true", help="print the rows as a JSON array of objects")
    arguments = parser.parse_args()
    try:
        with reading(arguments.directory):
            columns, rows = query(arguments.directory, arguments.sql)
    except UserError as error:
        print(f"derma: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], default=str))
    else:
        print(table(columns, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
