"""A labelled picture, and what a label file says of one before it is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from derma_common.boxes import Boxes
from derma_common.preprocess import Image
from derma_common.recordings import read_picture

NO_BOXES: Boxes = np.zeros((0, 4), np.float32)
NO_CLASSES: npt.NDArray[np.int64] = np.zeros(0, np.int64)
Box = tuple[float, float, float, float]  # x1 y1 x2 y2


@dataclass(frozen=True, eq=False)
class Annotated:
    """A labelled picture whose pixels stay in its file.

    Coordinates are of the picture turned upright by EXIF, as `read_picture` and the pipeline's capture show it.
    """

    path: Path
    width: int  # px
    height: int
    boxes: Boxes = field(default_factory=lambda: NO_BOXES)  # (N, 4) float32 xyxy px
    classes: npt.NDArray[np.int64] = field(default_factory=lambda: NO_CLASSES)  # (N,)
    ignored: Boxes = field(default_factory=lambda: NO_BOXES)  # (K, 4): what is found there is neither right nor wrong
    source: str = ""  # the data set
    group: str = ""  # patient or lesion, where known: what must not be torn apart by a split or a bootstrap
    split: str = ""  # "train", "val" or "test" where the data say so

    def image(self) -> Image:
        """Decode the picture: (height, width, 3) uint8 BGR, upright. Raises SourceError."""
        return read_picture(self.path)


@dataclass(frozen=True, eq=False)
class Decoded(Annotated):
    """A labelled picture that has no file of its own, such as a frame of a video; `path` only names it."""

    pixels: Image = field(default_factory=lambda: np.zeros((0, 0, 3), np.uint8))

    def image(self) -> Image:
        """Return the pixels."""
        return self.pixels


@dataclass(frozen=True)
class Label:
    """What a format's reader found for one picture, as written: not yet checked, not yet in px."""

    picture: Path
    where: str  # for the report: file and line
    boxes: Sequence[Box] = ()
    classes: Sequence[int] = ()  # one for each box; −1: none of the known ones
    ignored: Sequence[Box] = ()
    normalised: bool = False  # coordinates are shares of width and height
    stated: tuple[int, int] | None = None  # width, height that the labels give the picture
    source: str = ""
    group: str = ""
    split: str = ""
