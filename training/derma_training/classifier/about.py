"""What is known of a person and a place on the body, as numbers: age, sex, site. Imports no torch.

Encoded after the SIIM-ISIC 2020 winners (arXiv 2010.05351): age / 90, and one-hot sex and site; unknown has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from derma_training.classifier.manifest import Row

SEXES = ("female", "male")
AGE_SCALE = 90.0


@dataclass(frozen=True)
class AboutEncoder:
    """Turns a row into numbers; `sites` are those that training saw."""

    sites: tuple[str, ...]

    @property
    def width(self) -> int:
        """How many numbers a row gives."""
        return 2 + len(SEXES) + 1 + len(self.sites) + 1

    def encode(self, rows: Sequence[Row]) -> npt.NDArray[np.float32]:
        """Return (N, width) float32: age, age unknown, sex, sex unknown, site, site unknown or never seen."""
        numbers = np.zeros((len(rows), self.width), dtype=np.float32)
        for values, row in zip(numbers, rows, strict=True):
            values[0 if row.age is not None else 1] = row.age / AGE_SCALE if row.age is not None else 1.0
            values[2 + _place(row.sex, SEXES)] = 1.0
            values[3 + len(SEXES) + _place(row.site, self.sites)] = 1.0
        return numbers


def _place(word: str, known: Sequence[str]) -> int:
    return known.index(word) if word in known else len(known)


def encoder_of(rows: Sequence[Row]) -> AboutEncoder:
    """Return the encoder for the sites that occur in rows."""
    return AboutEncoder(tuple(sorted({row.site for row in rows} - {"", "unknown"})))
