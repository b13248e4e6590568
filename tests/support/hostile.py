"""Damaged pictures: good ones with bytes changed, cut out, doubled or cut off, always the same ones."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

SUFFIXES = (".jpg", ".png", ".webp", ".tif", ".bmp")


def damaged_pictures(suffix: str, count: int) -> Iterator[bytes]:
    """Yield files of one kind."""
    rng = np.random.default_rng(7)
    image = cv2.GaussianBlur(rng.integers(0, 255, (64, 48, 3), dtype=np.uint8), (9, 9), 0)
    _, whole = cv2.imencode(suffix, image)
    for _ in range(count):
        yield damaged(whole.tobytes(), rng)


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """Return bytes with some changed, cut out, doubled, or cut off."""
    data = bytearray(whole)
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
