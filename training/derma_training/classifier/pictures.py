"""Reading a picture file: once for preparing, training and measuring."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from derma_common.errors import ConfigError
from derma_common.preprocess import Image


def read_picture(file: Path) -> Image:
    """Read a picture as (H, W, 3) uint8 BGR, turned upright by its EXIF. Raises ConfigError."""
    image = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if image is None:
        raise ConfigError(f"{file} is no picture that OpenCV can read")
    return np.asarray(image, dtype=np.uint8)
