"""Draw what was found on single pictures, and beside them where the classifier looked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from derma_cli.oneshot import Explanation, Lesion
from derma_cli.pictures import annotate
from derma_common.errors import ResourceError
from derma_common.inference.explain import NOTABLE, overlay
from derma_common.preprocess import Image, resize

PANEL_PX = 224  # side of an explained crop
PAPER = 255


class Drawings:
    """A folder of drawn results, one JPEG for each picture of a command."""

    def __init__(self, folder: Path) -> None:
        """Make the folder. Raises ResourceError."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _refused(folder, error) from error
        self._folder = folder
        self._taken: set[str] = set()

    def write(self, origin: str, image: Image, lesions: Sequence[Lesion]) -> Path:
        """Draw the lesions of image (H, W, 3) uint8 BGR, read from `origin`; return the file. Raises ResourceError."""
        drawn = annotate(image, lesions, "")
        panels = [_panel(lesion.explanation) for lesion in lesions if lesion.explanation is not None]
        if panels:
            column = np.vstack(panels)
            height = max(len(drawn), len(column))
            drawn = np.hstack([_on_paper(drawn, height), _on_paper(column, height)])
        path = self._folder / f"{self._free_name(Path(origin).stem)}.jpg"
        _, data = cv2.imencode(".jpg", drawn)
        try:
            path.write_bytes(data.tobytes())
        except OSError as error:
            raise _refused(path, error) from error
        return path

    def _free_name(self, stem: str) -> str:
        """Return a name that no other picture of this command has: two folders may hold the same one."""
        name, n = stem, 1
        while name in self._taken:
            n += 1
            name = f"{stem}-{n}"
        self._taken.add(name)
        return name


def _refused(path: Path, error: OSError) -> ResourceError:
    return ResourceError(f"cannot write {path}: {error.strerror}; choose another place with --pictures DIR")


def _panel(explanation: Explanation) -> Image:
    """Return the crop and the map over it, side by side."""
    sides = [explanation.crop, overlay(explanation.crop, explanation.heat, NOTABLE)]
    return np.asarray(np.hstack([resize(side, PANEL_PX) for side in sides]), dtype=np.uint8)


def _on_paper(image: Image, height: int) -> Image:
    """Return image (H, W, 3) made `height` px high with white below."""
    below = ((0, height - len(image)), (0, 0), (0, 0))
    return np.pad(image, below, constant_values=PAPER)
