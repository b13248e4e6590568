"""Passwords in files of their own: read only where nobody else could read them."""

from __future__ import annotations

from pathlib import Path

from derma_common.errors import ConfigError


def read_secret(file: str, setting: str, refused_mode: int) -> str:
    """Return the text of a file, without the white space around it; "" when no `file` is set.

    `setting` names where the file was set, `refused_mode` the permission bits that nobody may have. Raises ConfigError.
    """
    if not file:
        return ""
    path = Path(file).expanduser()
    try:
        if path.stat().st_mode & refused_mode:
            raise ConfigError(f"{setting} {path} can be read by others: chmod 600 it")
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting} {path} cannot be read: {error}") from error
