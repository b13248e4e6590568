"""Options that several commands share, checked before a command's body runs, and the settings they resolve to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from derma_common.config import load_settings
from derma_common.errors import ConfigError
from derma_common.settings import Settings

DEFAULT_FILE = Path("derma.toml")

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Settings file; derma.toml of this folder when there is one.")
]
DataDir = Annotated[
    str | None, typer.Option("--data-dir", help="Where database and logs lie (default: derma-data, here).")
]
TILE = typer.Option(
    metavar="auto|PX",
    help="Look at wide pictures in tiles too: auto, as suits them, or of this side; 0: do not.",
)
AsJson = Annotated[bool, typer.Option("--json", help="Print data as JSON on stdout.")]


def resolve(config: Path | None, data_dir: str | None, flags: dict[str, Any] | None = None) -> Settings:
    """Resolve the settings for a command. Raises ConfigError."""
    file = config or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    chosen = dict(flags or {})
    if data_dir is not None:
        chosen["run.data_dir"] = data_dir
    return load_settings(file, os.environ, {k: v for k, v in chosen.items() if v is not None})


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Turn `section.key=value` texts into flags; values read as in a settings file. Raises ConfigError."""
    import tomllib

    flags: dict[str, Any] = {}
    for text in assignments:
        key, found, value = text.partition("=")
        if not found or "." not in key:
            raise ConfigError(f"--set {text}: write section.key=value, such as detector.threads=2")
        try:
            read = tomllib.loads(f"v = {value}")
        except tomllib.TOMLDecodeError:
            read = {"v": value}
        if set(read) != {"v"}:
            raise ConfigError(f"--set {text!r}: write one setting at a time")
        flags[key.strip()] = read["v"]
    return flags
