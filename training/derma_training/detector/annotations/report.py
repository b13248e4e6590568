"""What is wrong with labels and pictures, kind by kind, for a person to mend."""

from __future__ import annotations

from collections import defaultdict
from enum import StrEnum
from typing import Any

EXAMPLES = 3


class Problem(StrEnum):
    """What can be wrong; the value completes a line that starts with a count."""

    NOT_A_NUMBER = "boxes refused: not four finite numbers"
    EMPTY = "boxes refused: no width or no height"
    OUTSIDE = "boxes refused: wholly outside the picture"
    CLASS = "boxes refused: class out of range"
    REPEATED = "boxes refused: the same box a second time"
    CLIPPED = "boxes cut at the picture's edge"
    LINE = "lines refused: not `class x y width height`"
    LABEL_FILE = "label files refused: cannot be read"
    TABLE = "tables not used: no column of boxes is recognised"
    NO_PICTURE = "labels without their picture"
    PICTURE = "pictures left out: cannot be decoded"
    UNKNOWN = "pictures left out: the table has no box for them and does not say that there is no lesion"
    SHAPE = "pictures left out: labelled at a size of another shape"
    SCALED = "pictures labelled at another size: boxes scaled with them"
    TURNED = "pictures labelled before they were turned upright: boxes turned with them"
    UNLABELLED = "pictures without a label: taken to show no lesion"


class Report:
    """Problems in the order in which they were met, with the places where."""

    def __init__(self) -> None:
        self.places: dict[Problem, list[str]] = defaultdict(list)

    def add(self, problem: Problem, where: str) -> None:
        """Note a problem at a place, such as a file and a line."""
        self.places[problem].append(where)

    def count(self, problem: Problem) -> int:
        """Return how often a problem was met."""
        return len(self.places.get(problem, ()))

    def lines(self) -> list[str]:
        """Return one line for each kind of problem: how many, what, and where the first ones are."""
        lines = []
        for problem, places in self.places.items():
            more = ", …" if len(places) > EXAMPLES else ""
            lines.append(f"{len(places)} {problem} ({', '.join(places[:EXAMPLES])}{more})")
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return the counts by the problem's name in lower case."""
        return {problem.name.lower(): len(places) for problem, places in self.places.items()}
