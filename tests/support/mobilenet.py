"""A MobileNetV2 with drawn weights, in the form of a folded file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))


def drawn_mobilenet(path: Path) -> Path:
    """Write the 52 convolutions, random, in the order of the real one."""
    rng = np.random.default_rng(0)
    shapes = [(32, 3, 3, 3)]
    width = 32
    for expansion, outputs, depth in STAGES:
        for _ in range(depth):
            inner = width * expansion
            shapes += [(inner, width, 1, 1)] if expansion > 1 else []
            shapes += [(inner, 1, 3, 3), (outputs, inner, 1, 1)]
            width = outputs
    shapes.append((1280, width, 1, 1))
    arrays = {}
    for i, shape in enumerate(shapes):
        arrays[f"{i:02d}.weight"] = rng.normal(0, np.sqrt(2.0 / np.prod(shape[1:])), shape).astype(np.float16)
        arrays[f"{i:02d}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float16)
    np.savez(path, **arrays)
    return path
