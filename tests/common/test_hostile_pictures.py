"""A thousand damaged pictures: each is a picture or one clear line, and none takes the process or its memory."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from support.hostile import damaged_pictures

from derma_common.errors import SourceError
from derma_common.recordings import read_picture

MOST_PIXELS = 50_000_000


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".bmp"])
def test_a_damaged_picture_is_a_picture_or_one_clear_line(tmp_path, suffix):
    file = tmp_path / f"a{suffix}"
    read = refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for data in damaged_pictures(suffix, 200):
        file.write_bytes(data)
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
