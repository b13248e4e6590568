"""The shipped sample recording: drawn, labelled, and the same again from its script."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from derma_training import sample

SHIPPED = Path(__file__).parents[2] / "samples"


def test_the_shipped_truth_is_what_the_script_draws():
    shipped = json.loads((SHIPPED / "drawn-exam.json").read_text(encoding="utf-8"))
    assert shipped == sample.truth(sample.camera())
    assert shipped["drawn"] is True
    lesions = [lesion for frame in shipped["frames"] for lesion in frame["lesions"]]
    assert 5 <= len({lesion["id"] for lesion in lesions}) <= 8
    assert len({lesion["kind"] for lesion in lesions}) == 5


def test_the_shipped_recording_has_every_frame_and_shows_the_drawn_pixels():
    source = sample.camera()
    film = cv2.VideoCapture(str(SHIPPED / "drawn-exam.mp4"))
    frames = 0
    while True:
        good, image = film.read()
        if not good:
            break
        if frames % 56 == 0:
            assert np.abs(image.astype(int) - source.image(frames)).mean() < 6
        frames += 1
    film.release()
    assert frames == source.frames == 168
    assert (SHIPPED / "drawn-exam.mp4").stat().st_size < 4_000_000


def test_a_wrong_command_line_says_how_to_call(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["sample"])
    assert sample.main() == 2
    assert "usage" in capsys.readouterr().err
