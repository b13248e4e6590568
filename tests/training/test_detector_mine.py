"""Hard negatives: what a detector wrongly finds becomes a data set without lesions."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from support.labelled import blank, write_picture, write_table

from derma_common.errors import ConfigError, ResourceError
from derma_common.inference.fake import fake_detector
from derma_training.detector import __main__ as detector_program
from derma_training.detector.annotations import read_annotations
from derma_training.detector.mine import CROP_PX, Collection


@pytest.fixture
def skin(tmp_path):
    """Return a folder of three pictures: bare skin, a lesion, and a doubtful spot."""
    rows = []
    for name, boxes, ignored in (
        ("bare", "[]", "[]"),
        ("lesion", "[[1, 1, 9, 9]]", "[]"),
        ("doubt", "[]", "[[1, 1, 9, 9]]"),
    ):
        write_picture(tmp_path / "skin" / f"{name}.png", blank(416, 416))
        rows.append({"file": f"{name}.png", "boxes_px": boxes, "ignore_boxes_px": ignored})
    return write_table(tmp_path / "skin", rows)


@pytest.fixture
def video(tmp_path):
    film = cv2.VideoWriter(str(tmp_path / "hand.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (416, 416))
    for n in range(25):
        film.write(np.full((416, 416, 3), 10 * n, np.uint8))
    film.release()
    return tmp_path / "hand.mp4"


def mine(capsys, *arguments):
    status = detector_program.main(["mine", *(str(a) for a in arguments)])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_false_findings_become_a_data_set_without_lesions(tmp_path, skin, video, capsys):
    model, out = fake_detector(tmp_path / "model"), tmp_path / "out"
    status, printed, said = mine(capsys, "--model", model, "--pictures", skin, video, "--out", out, "--threshold", 0.85)
    assert status == 0
    summary = json.loads(printed)
    counts = {name: summary[name] for name in ("n_images", "n_images_kept", "n_false", "fp_per_image")}
    assert counts == {"n_images": 4, "n_images_kept": 4, "n_false": 4, "fp_per_image": 1.0}
    assert "2 left out: they show lesions or doubtful spots" in said
    found = read_annotations(out)
    assert [p.path.name for p in found.pictures] == [
        "00000-bare.png", "00001-hand-000000.jpg", "00002-hand-000010.jpg", "00003-hand-000020.jpg",
    ]  # fmt: skip
    assert found.boxes == 0 and found.report.lines() == [] and found.format == "YOLO text"
    assert (out / "images" / "00000-bare.png").read_bytes() == (skin / "bare.png").read_bytes()
    assert found.pictures[2].image().mean() == pytest.approx(100, abs=5)
    crops = sorted((out / "crops").iterdir())
    assert len(crops) == 4 and cv2.imread(str(crops[0])).shape == (CROP_PX, CROP_PX, 3)
    rows = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["pictures"]
    assert rows[0]["boxes"] == [[100, 100, 150, 150]] and rows[0]["scores"] == [0.9]
    assert rows[0]["origin"] == str(skin / "bare.png")


def test_a_detector_that_finds_nothing_leaves_no_pictures(tmp_path, skin, capsys):
    model, out = fake_detector(tmp_path / "model", boxes=[], scores=[]), tmp_path / "out"
    _, printed, _ = mine(capsys, "--model", model, "--pictures", skin, "--out", out)
    assert json.loads(printed)["n_images_kept"] == 0 and list((out / "images").iterdir()) == []


def test_what_a_user_can_mend_is_one_line(tmp_path, skin, capsys):
    model = fake_detector(tmp_path / "model")
    assert mine(capsys, "--model", model, "--pictures", skin, "--out", skin)[::2] == (
        2, f"derma: {skin} is not empty: name a new folder\n",
    )  # fmt: skip
    assert mine(capsys, "--model", model, "--pictures", tmp_path / "no", "--out", tmp_path / "new")[0] == 3
    assert mine(capsys, "--model", model, "--pictures", skin, "--out", tmp_path / "new", "--every", 0)[0] == 2
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write into"):
        Collection(tmp_path / "file" / "out")
    with pytest.raises(ConfigError, match="is not empty"):
        Collection(tmp_path)
