"""Mutated entries of every stream: each is an entry or one clear refusal, and so is the picture that it holds."""

from __future__ import annotations

from itertools import islice

from support.crops import crop, job, lesion
from support.mutations import Mutations

from derma_common.cloud.entries import (
    CropJob,
    FrameFindings,
    JobResult,
    LesionPicture,
    Opinion,
    SentLesion,
    image_of,
    pack,
    unpack,
)
from derma_common.errors import InvalidMessage

KINDS = (FrameFindings, LesionPicture, Opinion, CropJob, JobResult)
GOOD = (
    lesion(), lesion(image=crop(1, px=16)), job("j", crop(2, px=16)),
    pack(FrameFindings("room1", "r", "cam0", 3, 5, 64, 48, "delivered", "", "det@1", "0.1", 0,
                       (SentLesion(0, (1.0, 2.0, 3.0, 4.0), 0.5, {"MEL": 1.0}, "cls@1"),))),
    pack(Opinion("room1", "r", "cam0", 3, 0, {"MEL": 0.5, "NV": 0.5}, ("a", "b"), "mean", "w", 5, 6)),
    pack(JobResult("room1", "j", (0.25, 0.75), ("a", "b"), "cls@1", "w", 1, 2)),
)  # fmt: skip
COUNT = 20_000


def read(data, kind):
    """Read an entry as its consumers do, its picture too; say whether it was one."""
    try:
        entry = unpack(data, kind)
        if isinstance(entry, LesionPicture | CropJob):
            assert image_of(entry.picture).shape == (entry.picture.height, entry.picture.width, 3)
    except InvalidMessage as error:
        assert len(str(error)) < 400 and "\n" not in str(error)
        return False
    return True


def test_a_mutated_entry_is_an_entry_or_refused():
    drawn = [data for parts in islice(Mutations(GOOD, seed=1), COUNT) for data in parts[:1]]
    found = [read(data, KINDS[i % len(KINDS)]) for i, data in enumerate(drawn)]
    assert 0.001 * COUNT < sum(found) < 0.5 * COUNT
