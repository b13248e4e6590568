"""Entries of the streams: what is packed comes out the same, what is not an entry does not come out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.cloud.entries import (
    MAX_PICTURE_BYTES,
    CropJob,
    FrameFindings,
    JobResult,
    Opinion,
    Picture,
    SentLesion,
    image_of,
    pack,
    picture_of,
    unpack,
)
from derma_common.errors import InvalidMessage

RNG = np.random.default_rng(1)
IMAGE = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_pictures_travel_without_loss(encoding):
    job = CropJob("room1", "j1", "cls@1", 5, picture_of(IMAGE, encoding))
    assert np.array_equal(image_of(unpack(pack(job), CropJob).picture), IMAGE)


def test_findings_opinions_and_results_come_out_the_same():
    lesion = SentLesion(0, (1.0, 2.0, 3.0, 4.0), 0.5, {"MEL": 1.0}, "cls@1")
    for entry in (
        FrameFindings("room1", "r", "cam0", 3, 5, 64, 48, "delivered", "", "det@1", "0.1", 0, (lesion,)),
        Opinion("room1", "r", "cam0", 3, 0, {"MEL": 0.5, "NV": 0.5}, ("a", "b"), "mean", "w", 5, 6),
        JobResult("room1", "j", (0.25, 0.75), ("a", "b"), "cls@1", "w", 1, 2),
    ):
        assert unpack(pack(entry), type(entry)) == entry


def test_one_kind_of_entry_is_not_taken_for_another():
    with pytest.raises(InvalidMessage, match="a JobResult where a CropJob belongs"):
        unpack(pack(JobResult("room1", "j", (), (), "cls@1", "w", 1, 2)), CropJob)


@given(st.binary(max_size=300))
def test_bytes_from_a_stranger_are_refused(data):
    with pytest.raises(InvalidMessage):
        unpack(data, CropJob)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Picture("jpeg", 2, 2, b""), "raw or png"),
        (lambda: Picture("raw", 2, 2, b"123"), "3 bytes for 2x2"),
        (lambda: Picture("raw", 0, 2, b""), "a picture of 2x0"),
        (lambda: Picture("png", 9999, 2, b""), "the limit is"),
        (lambda: Opinion("../x", "r", "cam0", 3, 0, {}, (), "m", "w", 5, 6), "no site"),
        (lambda: Opinion("room1", "r", "cam0\n", 3, 0, {}, (), "m", "w", 5, 6), "no site"),
        (lambda: JobResult("room1", "j", (0.5,), ("a", "b"), "m", "w", 1, 2), "1 probabilities for 2 classes"),
    ],
)
def test_what_makes_no_sense_cannot_be_made(make, why):
    with pytest.raises(ValueError, match=why):
        make()


def test_a_png_that_is_not_what_it_says_is_refused_before_it_is_decoded(monkeypatch):
    large = cv2.imencode(".png", np.zeros((900, 900, 3), np.uint8))[1].tobytes()
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    for data in (large, b"", b"text" * 20, large[:20]):
        with pytest.raises(InvalidMessage, match="no PNG of the size"):
            image_of(Picture("png", 20, 30, data))


def test_a_damaged_png_is_refused():
    whole = picture_of(IMAGE, "png")
    with pytest.raises(InvalidMessage, match="damaged"):
        image_of(Picture("png", 20, 30, whole.data[:40]))


def test_too_large_a_picture_is_refused():
    entry = pack(CropJob("room1", "j", "m", 1, Picture("png", 20, 30, bytes(MAX_PICTURE_BYTES + 1))))
    with pytest.raises(InvalidMessage, match=r"limit|exceeds"):
        unpack(entry, CropJob)
