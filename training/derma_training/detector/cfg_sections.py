"""Darknet's .cfg text as it stands: sections, each with its options, in their order."""

from __future__ import annotations

from dataclasses import dataclass, field

from derma_common.errors import ModelError


@dataclass(frozen=True)
class Section:
    """One [section] and its options, in their order; `line` is where it starts."""

    kind: str
    options: dict[str, str] = field(default_factory=dict)
    line: int = 0

    def text(self) -> str:
        """Return the section as it stands in a file."""
        return "\n".join([f"[{self.kind}]", *(f"{key}={value}" for key, value in self.options.items()), ""])


def sections(text: str, name: str = "cfg") -> list[Section]:
    """Split cfg text into its sections, [net] first. Raises ModelError."""
    found: list[Section] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].partition(";")[0].strip()
        if line.startswith("[") and line.endswith("]"):
            found.append(Section(line[1:-1].strip(), {}, number))
        elif line:
            key, equals, value = (part.strip() for part in line.partition("="))
            if not equals or not found:
                raise ModelError(f"{name}, line {number}: {line!r} is neither a [section] nor an option of one")
            if key in found[-1].options:
                raise ModelError(f"{name}, line {number}: {key} is set twice in [{found[-1].kind}]")
            found[-1].options[key] = value
    if not found or found[0].kind not in ("net", "network"):
        raise ModelError(f"{name}: a Darknet cfg starts with [net]")
    return found
