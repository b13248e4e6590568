"""Crops, jobs and lesion pictures for stream tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from derma_common.cloud.entries import CropJob, JobResult, LesionPicture, pack, picture_of, unpack
from derma_common.cloud.streams import Line, results_key
from derma_common.preprocess import Image

LONG_NS = 3_600_000_000_000


def crop(seed: int = 0, px: int = 64) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (px, px, 3), dtype=np.uint8)


def job(name: str, image: Image | None = None, within_ns: int = LONG_NS, site: str = "room1") -> bytes:
    return pack(CropJob(site, name, "model", within_ns, picture_of(crop() if image is None else image, "raw")))


def lesion(seq: int = 0, site: str = "room1", priority: int = 0, image: Image | None = None, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "run": "run-1", "camera": "cam0", "number": 0, "wall_ns": 1, "classifier": "edge@0",
        "probabilities": {"melanoma": 0.9}, "picture": picture_of(crop(seq) if image is None else image, "png"),
    }  # fmt: skip
    return pack(LesionPicture(site=site, seq=seq, priority=priority, **(values | changes)))


def results(line: Line, site: str = "room1") -> list[JobResult]:
    """Return all results of a site, oldest first."""
    return [unpack(d.data, JobResult) for d in line.read({results_key(site): "0-0"}, 10_000, 0)]
