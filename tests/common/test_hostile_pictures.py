"""A thousand damaged pictures: each is a picture or one clear line, and none takes the process or its memory."""

from __future__ import annotations

import resource

import cv2
import numpy as np
import pytest

from derma_common.errors import SourceError
from derma_common.recordings import read_picture

MOST_PIXELS = 50_000_000


def mutated(data, rng):
    """Return bytes with some changed, cut out, doubled, or cut off."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 8)):
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
        match rng.integers(4):
            case 0:
                data[at] = rng.integers(256)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
            case _:
                data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
        if len(data) < 2:
            return bytes(data)
    return bytes(data[: rng.integers(1, len(data))] if rng.random() < 0.3 else data)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_a_damaged_picture_is_a_picture_or_one_clear_line(tmp_path, suffix):
    rng = np.random.default_rng(7)
    image = cv2.GaussianBlur(rng.integers(0, 255, (64, 48, 3), dtype=np.uint8), (9, 9), 0)
    _, whole = cv2.imencode(suffix, image)
    file = tmp_path / f"a{suffix}"
    read = refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):
        file.write_bytes(mutated(whole.tobytes(), rng))
        try:
            found = read_picture(file)
        except SourceError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
            assert found.shape[0] * found.shape[1] <= MOST_PIXELS
            read += 1
    assert read + refused == 200 and refused > 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 800_000, "kB: 50 million pixels and copies"
