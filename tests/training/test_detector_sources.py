"""What a model's card quotes: splits that never share a lesion, a patient or a neighbouring frame, and the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.labelled import blank, write_picture, write_table

from derma_common.errors import SourceError
from derma_common.inference.card import read_card
from derma_common.inference.fake import fake_detector
from derma_training.detector import __main__ as detector_program
from derma_training.detector import sources
from derma_training.detector.commands import figures as figures_command

SAMPLE = Path(__file__).parents[2] / "samples" / "drawn-exam.mp4"


def write_video(file, frames, size=64):
    file.parent.mkdir(parents=True, exist_ok=True)
    film = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 10, (size, size))
    for _ in range(frames):
        film.write(np.zeros((size, size, 3), np.uint8))
    film.release()


@pytest.fixture
def data(tmp_path):
    """Return a folder laid out as the real one, with a few grey pictures."""
    rows = []
    for n in range(24):
        write_picture(tmp_path / "ham10000_224" / "images" / f"ISIC_{n}.jpg", blank(60, 60))
        box = dict(zip(("x1", "y1", "x2", "y2"), (0.3, 0.3, 0.7, 0.7) if n != 3 else [""] * 4, strict=True))
        split = "train" if n < 8 else "val"
        rows.append(
            {"file": f"images/ISIC_{n}.jpg", "split": split, "lesion_id": f"HAM_{n // 2}", "label": "NV", **box}
        )
    write_table(tmp_path / "ham10000_224", rows)
    rows = []
    for n in range(12):
        write_picture(tmp_path / "pad_ufes20_phone" / "images" / f"PAT_{n}.png", blank(60, 60))
        box = "[[0.3, 0.3, 0.7, 0.7]]" if n else "[]"
        split = "train" if n < 4 else "val"
        rows.append({"file": f"images/PAT_{n}.png", "split": split, "boxes_norm": box, "patient_id": f"P{n // 2}"})
    write_table(tmp_path / "pad_ufes20_phone", rows)
    rows = []
    for name in ("image_0009", "image_0102"):
        write_picture(tmp_path / "itobos_widefield" / "images" / f"{name}.png", blank(700, 600))
        boxes, ignored = '[[10, 10, 20, 20, "red"]]', "[[1, 2, 3, 4]]"
        rows.append({"file": f"images/{name}.png", "boxes_px": boxes, "ignore_boxes_px": ignored})
    write_table(tmp_path / "itobos_widefield", rows)
    for n in range(12):
        write_picture(tmp_path / "normal_skin_sweep" / "frames" / f"{n:04d}.jpg")
    write_video(tmp_path / "video_hand" / "h.mp4", 30)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("itobos", (1, 0, 1)), ("normal_skin", (6, 2, 4)), ("hand_video", (4, 0, 2)), ("drawn", (0, 120, 120))],
)
def test_every_picture_is_in_one_split(data, monkeypatch, name, wanted):
    monkeypatch.setattr(sources, "draw_skin", lambda rng, width, height, px_per_mm: FlatScene())
    monkeypatch.setattr(sources, "photograph", lambda rng, image: image)
    found = [[p.path for p in sources.SOURCES[name](data, split)] for split in ("train", "tune", "test")]
    assert tuple(map(len, found)) == wanted
    if name != "drawn":  # whose splits differ in their seeds
        assert len({path for paths in found for path in paths}) == sum(wanted)


class FlatScene:
    """A scene that takes no time to draw."""

    image = blank(64, 48)
    boxes = np.zeros((0, 4), np.float32)


@pytest.mark.parametrize(("name", "count"), [("ham10000", 23), ("pad_ufes20", 11)])
def test_splits_share_no_lesion_and_no_patient_and_hold_only_boxed_pictures(data, name, count):
    groups = [{p.group for p in sources.SOURCES[name](data, split)} for split in ("train", "tune", "test")]
    pictures = [p for split in ("train", "tune", "test") for p in sources.SOURCES[name](data, split)]
    assert len(pictures) == count and all(len(p.boxes) == 1 for p in pictures)
    assert all(groups) and sum(map(len, groups)) == len(set.union(*groups))


def test_missing_data_is_one_clear_line(tmp_path):
    for name in ("ham10000", "normal_skin", "hand_video"):
        with pytest.raises(SourceError, match=str(tmp_path)):
            list(sources.SOURCES[name](tmp_path, "train"))


def test_a_recording_is_read_with_the_truth_beside_it(tmp_path):
    frames = sources.recording(SAMPLE)
    truth = json.loads(SAMPLE.with_suffix(".json").read_text(encoding="utf-8"))["frames"]
    for frame in (next(frames) for _ in range(3)):
        seq = int(frame.path.stem.rpartition("-")[2])
        np.testing.assert_allclose(frame.boxes, [lesion["box"] for lesion in truth[seq]["lesions"]], atol=1e-3)
        assert frame.image().shape == (frame.height, frame.width, 3)
    shutil.copy(SAMPLE, tmp_path / "bare.mp4")
    with pytest.raises(SourceError, match="no readable truth"):
        next(sources.recording(tmp_path / "bare.mp4"))


def test_the_command_chooses_a_threshold_measures_and_fills_the_card(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sources, "DRAWN_SCENES", 1)
    monkeypatch.setattr(figures_command, "SAMPLES", 20)
    write_video(tmp_path / "sample.mp4", 2)
    frames = [{"seq": 0, "lesions": [{"box": [1, 1, 9, 9]}]}, {"seq": 1, "lesions": []}]
    (tmp_path / "sample.json").write_text(json.dumps({"frames": frames}))
    model = fake_detector(tmp_path / "model")
    arguments = ["figures", data, model, "--sample", tmp_path / "sample.mp4", "--choose", "--write"]
    assert detector_program.main([str(a) for a in arguments]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    card = read_card(model)
    assert card.score_threshold == printed[0]["threshold"] == 0.9  # the lowest at which the false finds of 0.9 are gone
    held_out = card.figures["held_out"]
    assert list(held_out) == [*sources.SOURCES, "itobos_tiled", "sample_video"]
    assert held_out["itobos"]["n_boxes"] == 1 and held_out["sample_video"]["n_images"] == 2
    assert held_out["pad_ufes20"]["intervals"]["recall"] == [0, 0]
    assert set(card.figures) == {"held_out", "threshold_chosen_on", "command", "date"}
