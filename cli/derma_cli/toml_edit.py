"""Set single values in a settings file and leave the rest, comments too, as its owner wrote it."""

from __future__ import annotations

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from derma_common.errors import ConfigError, ResourceError

Value = int | str | list[int]


def write_values(file: Path, values: Mapping[str, Value]) -> None:
    """Set "section.key" values in a settings file, which is made when there is none.

    Raises ConfigError when the file is written in a way that cannot be edited safely, ResourceError when it cannot be
    written.
    """
    try:
        before = file.read_text(encoding="utf-8") if file.exists() else ""
        after = edited(before, values)
        _replace(file, after)
    except (OSError, UnicodeDecodeError) as error:
        raise ResourceError(f"{file} cannot be written: {error}; set by hand: {by_hand(values)}") from error
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} cannot be edited safely ({error}); set by hand: {by_hand(values)}") from error


def by_hand(values: Mapping[str, Value]) -> str:
    """Return the values as a person would write them."""
    return ", ".join(f"{dotted} = {_literal(value)}" for dotted, value in values.items())


def _literal(value: Value) -> str:
    """Return a value in TOML, which writes these as JSON does."""
    return json.dumps(value, ensure_ascii=False)


def edited(text: str, values: Mapping[str, Value]) -> str:
    """Return a TOML text with "section.key" values set. Raises ValueError when that would change anything else."""
    wanted: dict[str, Any] = tomllib.loads(text)
    for dotted, value in values.items():
        section, _, key = dotted.partition(".")
        table = wanted.setdefault(section, {})
        if not isinstance(table, dict):
            raise ValueError(f"{section} is no table")
        table[key] = value
        text = _with_value(text, section, key, value)
    if tomllib.loads(text) != wanted:
        raise ValueError("its tables are written in an unusual way")
    return text


def _with_value(text: str, section: str, key: str, value: Value) -> str:
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    start = next((i for i, line in enumerate(lines) if re.match(rf"\s*\[\s*{section}\s*\]", line)), None)
    if start is None:
        return "".join([*lines, "\n" if lines else "", f"[{section}]\n", f"{key} = {_literal(value)}\n"])
    end = next((i for i in range(start + 1, len(lines)) if re.match(r"\s*\[", lines[i])), len(lines))
    for i in range(start + 1, end):
        found = re.match(rf"(\s*{key}\s*=\s*)[^#\n]*?(\s*(?:#.*)?\n)\Z", lines[i])
        if found:
            lines[i] = f"{found[1]}{_literal(value)}{found[2]}"
            return "".join(lines)
    lines.insert(start + 1, f"{key} = {_literal(value)}\n")
    return "".join(lines)


def _replace(file: Path, text: str) -> None:
    """Write a file as a whole or not at all, with the rights that it had."""
    descriptor, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(draft, file.stat().st_mode & 0o777 if file.exists() else 0o600)
        os.replace(draft, file)
    except OSError:
        os.unlink(draft)
        raise
