"""What people look at: the picture of class counts, the curves, the line on the terminal."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest

from derma_common.errors import ResourceError
from derma_training.classifier.charts import COLOURS, bars, curves, save
from derma_training.progress import Progress


def width_of(image: np.ndarray, colour: tuple[int, ...], row: int) -> int:
    """Return how many px of one bar have a colour."""
    top = 3 * 26 + row * 26
    return int((image[top - 5] == colour).all(axis=1).sum())


def test_bars_are_as_long_as_their_counts() -> None:
    image = bars({"NV": {"train": 300, "test": 100}, "DF": {"train": 40, "test": 0}}, "440 pictures")
    train, test = COLOURS[:2]
    unit = width_of(image, train, 0) / 300
    assert unit > 1
    assert width_of(image, test, 0) == pytest.approx(100 * unit, abs=3)
    assert width_of(image, train, 1) == pytest.approx(40 * unit, abs=3)
    assert width_of(image, test, 1) <= 1


def test_a_curve_goes_from_its_lowest_to_its_highest_and_skips_what_is_no_number() -> None:
    image = curves({"loss": [2.0, 1.5, math.nan, 1.0], "bma": [0.5]}, "run")
    assert image.shape == (340, 800, 3)
    drawn = (image[:170] == COLOURS[0]).all(axis=2)
    rows, columns = np.nonzero(drawn)
    assert rows[columns < 90].mean() < 40 and rows[columns > 775].mean() > 135


def test_a_picture_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="cannot be written"):
        save(np.zeros((4, 4, 3), np.uint8), tmp_path / "nowhere" / "a.png")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_line_on_a_terminal_and_nothing_elsewhere() -> None:
    terminal, file, now = Terminal(), io.StringIO(), iter(range(100))
    for stream in (terminal, file):
        with Progress("pictures", 3, stream, clock=lambda: float(next(now))) as progress:
            for _ in range(3):
                progress.step(note="loss 0.5")
    assert terminal.getvalue().count("\n") == 1 and terminal.getvalue().split("\r\x1b[K")[-1] == (
        "pictures 3/3  1.0/s  0 s left  loss 0.5\n"
    )
    assert file.getvalue() == ""
