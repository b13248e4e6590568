"""`derma archive`: hand over to the program that asks the archive, in this process."""

from __future__ import annotations

import importlib.util
import os
import sys

import typer

from derma_common.errors import ResourceError

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def need_extra() -> None:
    """Raise ResourceError when what reads and writes Parquet is not installed."""
    missing = [name for name in ("pyarrow", "duckdb") if importlib.util.find_spec(name) is None]
    if missing:
        raise ResourceError(f"{' and '.join(missing)} missing, of the extra: pip install 'derma[cloud]'")


def archive(context: typer.Context) -> None:
    """Ask the stored findings of all rooms in SQL: derma archive DIR "SELECT … FROM findings"."""
    need_extra()
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "derma_cloud.archive", *context.args])
