"""Write docs/configuration.md from derma.toml, whose comments are the one place where settings are described.

python deploy/configuration_page.py > docs/configuration.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

SETTINGS = Path(__file__).with_name("derma.toml")
HEAD = """# Configuration

<!-- made from deploy/derma.toml: python deploy/configuration_page.py > docs/configuration.md -->
"""
CAMERA = "# [[camera]]\n"  # a table that is commented out: its lines have one # more
_VALUE = re.compile(r"([a-z_]+) = ")


def page(text: str) -> str:
    """Return the page of a documented settings file: a section for each table, an entry for each setting."""
    tables, _, camera = text.partition(CAMERA)
    lines = [*tables.splitlines(), "[[camera]]", *re.sub("^# ?", "", camera, flags=re.MULTILINE).splitlines(), ""]
    return "\n".join([HEAD, *_entries(lines)]).rstrip() + "\n"


def _entries(lines: list[str]) -> Iterator[str]:
    """Yield markdown: what is said above a value, or above several that follow each other, comes below its name."""
    table, values, said = "", list[str](), list[str]()
    for line in lines:
        is_value = bool(_VALUE.match(line))
        if values and not is_value:
            *before, own = _paragraphs(said)
            yield from (f"{text}\n" for text in before)
            yield "\n".join(["```toml", *values, "```", ""])
            yield f"{own}{_environment(table, values)}\n"
            values, said = [], []
        if is_value:
            values.append(line)
        elif line.startswith("["):
            table = line
            yield f"## {line}\n"
        elif line.startswith("#"):
            said.append(line.removeprefix("#").strip())
        elif not line:
            yield from (f"{text}\n" for text in _paragraphs(said))
            said = []


def _paragraphs(said: list[str]) -> list[str]:
    return ["\n".join(lines) for some, lines in groupby(said, bool) if some]


def _environment(table: str, values: list[str]) -> str:
    """Return the environment variables that set these values; a camera's are its owner's to name."""
    if table == "[[camera]]":
        return ""
    names = [f"`DERMA_{table.strip('[]')}_{value.split(' = ')[0]}`".upper() for value in values]
    return f"\n{', '.join(names)}"


if __name__ == "__main__":
    print(page(SETTINGS.read_text(encoding="utf-8")), end="")
