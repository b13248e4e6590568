"""Reading the data sets: right boxes, and splits that never share a lesion, a patient or a neighbouring frame."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from derma_common.errors import SourceError
from derma_training.detector import sources as sources


def write_table(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [",".join(rows[0])] + [",".join(f'"{value}"' for value in row.values()) for row in rows]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def write_picture(file, width=60, height=60, disc=None):
    image = np.full((height, width, 3), 180, np.uint8)
    if disc:
        cv2.circle(image, disc[:2], disc[2], (40, 50, 90), -1)
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), image)


@pytest.fixture
def data(tmp_path):
    """Return a folder laid out as the real one, with a few drawn pictures."""
    rows, polygons = [], ["image_id,class,normalised_polygon_full_frame_x_y_..."]
    for n in range(24):
        name = f"ISIC_{n:07d}"
        write_picture(tmp_path / "ham10000_224" / "images" / f"{name}.jpg", disc=(30, 30, 12))
        box = {"x1": 0.3, "y1": 0.3, "x2": 0.7, "y2": 0.7} if n != 3 else dict.fromkeys(("x1", "y1", "x2", "y2"), "")
        split = "train" if n < 8 else "val"
        rows.append({"file": f"images/{name}.jpg", "split": split, "lesion_id": f"HAM_{n // 2}", **box})
        corners = [(0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7)]  # of the square; the full frame is 4:3
        polygons.append(f"{name},NV," + " ".join(f"{(x + 1 / 6) * 0.75:.4f} {y}" for x, y in corners))
    write_table(tmp_path / "ham10000_224", rows)
    (tmp_path / "ham10000_224" / "polygons.csv").write_text("\n".join(polygons) + "\n")
    rows = []
    for n in range(12):
        file = f"images/PAT_{n}.png"
        write_picture(tmp_path / "pad_ufes20_phone" / file, disc=(30, 30, 12))
        mask = np.zeros((60, 60), np.uint8)
        cv2.circle(mask, (30, 30), 12, 255, -1)
        (tmp_path / "pad_ufes20_phone" / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "pad_ufes20_phone" / "masks" / f"PAT_{n}.png"), mask)
        split, box = "train" if n < 4 else "val", "[[0.3, 0.3, 0.7, 0.7]]"
        row = {"file": file, "split": split, "n_boxes": 1, "boxes_x1y1x2y2_norm": box, "patient_id": f"P{n // 2}"}
        rows.append(row)
    write_table(tmp_path / "pad_ufes20_phone", rows)
    rows = []
    for name in ("image_0009", "image_0102"):
        write_picture(tmp_path / "itobos_widefield" / "images" / f"{name}.png", 80, 60)
        boxes = '[[10, 10, 20, 20, ""red""]]'
        row = {"file": f"images/{name}.png", "boxes_px_x1y1x2y2_kind": boxes, "ignore_boxes_px": "[[1, 2, 3, 4]]"}
        rows.append(row)
    write_table(tmp_path / "itobos_widefield", rows)
    for n in range(12):
        write_picture(tmp_path / "normal_skin_sweep" / "frames" / f"{n:04d}.jpg")
    (tmp_path / "video_hand").mkdir()
    size = (64, 64)
    film = cv2.VideoWriter(str(tmp_path / "video_hand" / "h.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, size)
    for _ in range(30):
        film.write(np.zeros((64, 64, 3), np.uint8))
    film.release()
    return tmp_path


def test_boxes_come_out_in_pixels_and_pictures_without_a_box_are_left_out(data):
    pictures = list(sources.ham10000(data, "train"))
    assert len(pictures) == 7
    assert pictures[0].boxes[0] == pytest.approx([18, 18, 42, 42]) and pictures[0].close_up
    tile = next(sources.itobos(data, "train"))
    assert tile.boxes.tolist() == [[10, 10, 20, 20]] and tile.ignored.tolist() == [[1, 2, 3, 4]]
    assert not tile.close_up


@pytest.mark.parametrize(
    ("name", "wanted"), [("normal_skin", (6, 2, 4)), ("hand_video", (4, 0, 2)), ("itobos", (1, 0, 1))]
)
def test_every_picture_is_in_one_split(data, name, wanted):
    found = tuple(len(list(sources.SOURCES[name](data, split))) for split in ("train", "tune", "test"))
    assert found == wanted


def test_tune_and_test_share_no_lesion_and_no_patient(data):
    assert sum(len(list(sources.ham10000(data, split))) for split in ("train", "tune", "test")) == 23
    assert sum(len(list(sources.pad_ufes20(data, split))) for split in ("train", "tune", "test")) == 12
    for lesion in range(4, 12):
        row = {"split": "val", "lesion_id": f"HAM_{lesion}"}
        assert sources._ham_split(row) in ("tune", "test") and sources._ham_split(row) == sources._ham_split(dict(row))


def test_cutouts_keep_the_lesions_colour_relative_to_its_skin(data):
    for cutout in (*sources.ham_cutouts(data, 3), *sources.pad_cutouts(data)[:1]):
        x1, y1, x2, y2 = cutout.box
        assert x2 - x1 == pytest.approx(24, abs=2) and y2 - y1 == pytest.approx(24, abs=2)
        middle = cutout.ratio[cutout.ratio.shape[0] // 2, cutout.ratio.shape[1] // 2]
        assert middle == pytest.approx(np.asarray([40, 50, 90]) / 180, abs=0.05)
        assert cutout.cover.max() == pytest.approx(1, abs=0.02) and cutout.cover[0, 0] < 0.2


def test_missing_data_is_one_clear_line(tmp_path):
    for name in ("ham10000", "normal_skin", "hand_video"):
        with pytest.raises(SourceError, match=str(tmp_path)):
            list(sources.SOURCES[name](tmp_path, "train"))


@pytest.mark.train
def test_the_commands_pack_train_and_export_a_detector(data, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
    pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")
    from derma_common.inference.card import read_card
    from derma_training.detector import __main__ as detector
    from derma_training.detector import scenes as detector_scenes
    from derma_training.detector import train as detector_train
    from derma_training.detector.commands import pack as pack_command

    monkeypatch.setattr(pack_command, "PACK_SCENES", 3)
    monkeypatch.setattr(detector_scenes, "SIDE_PX", 128)
    monkeypatch.setattr(detector_scenes, "PASTED_DIAMETER_PX", (9.0, 40.0))
    whole = detector_train.choose_anchors
    monkeypatch.setattr(detector_train, "choose_anchors", lambda pools, size, seed: whole(pools, 224, seed, 40))

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["detector", *(str(word) for word in words)])
        return detector.main()

    work, model = tmp_path / "work", tmp_path / "model"
    assert run("train", data, work, "--minutes", 0.01, "--size", 96) == 3
    assert "holds no packs" in capsys.readouterr().err
    assert run("pack", data, work, "--packs", 1) == 0
    for _ in range(2):  # the second goes on from the checkpoint, whose budget is spent
        assert run("train", data, work, "--minutes", 0.01, "--size", 96, "--threads", 1) == 0
    assert run("export", work, model, "--size", 96, "--threshold", 0.4) == 0
    card = read_card(model)
    assert (card.kind, card.classes, card.score_threshold) == ("detector", ("lesion",), 0.4)
    assert "non-commercial" in card.licence
