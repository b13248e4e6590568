"""`derma classify`: single pictures, examined at once."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.tiny_onnx import mean_colour_classifier

from derma_cli.classify import classify
from derma_cli.oneshot import MOST_EXPLAINED
from derma_common.errors import ConfigError, ModelError, ResourceError, SourceError
from derma_common.inference.card import InputSpec, ModelCard, sha256_of, write_card
from derma_common.inference.fake import fake_detector
from derma_common.preprocess import softmax

CLASSES = ("MEL", "NV", "UNK")


@pytest.fixture
def colours(tmp_path):
    """A real network that tells red (MEL), green (NV) and blue (UNK) pictures apart."""
    folder = tmp_path / "colours"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(mean_colour_classifier(4 * np.eye(3, dtype=np.float32), 32))
    write_card(
        ModelCard(
            "colours", "classifier", "mean colour", "model.onnx", sha256_of(folder / "model.onnx"),
            InputSpec("image", 32, 32, max_batch=16), ("logits",), CLASSES, "none",
        ),
        folder,
    )  # fmt: skip
    return folder


@pytest.fixture
def shot(tmp_path):
    """A red picture of 640 × 480 px."""
    file = tmp_path / "pictures" / "shot ü 1.png"
    file.parent.mkdir()
    cv2.imwrite(str(file), np.full((480, 640, 3), (0, 0, 255), dtype=np.uint8))
    return file


@pytest.fixture
def examine(tmp_path, monkeypatch, capsys, detector_dir, colours):
    """Run the command in a folder of its own with the test's networks; return what it printed on stdout."""
    monkeypatch.chdir(tmp_path)

    def run(*images, **options):
        given = {"detector": str(detector_dir), "classifier": str(colours)}
        classify([str(image) for image in images], **(given | options))
        return capsys.readouterr().out

    return run


def test_the_lesions_of_a_picture_are_found_and_classified(examine, shot):
    said = json.loads(examine(shot, as_json=True))
    (picture,) = said["pictures"]
    assert (picture["file"], picture["width"], picture["height"], picture["picture"]) == (str(shot), 640, 480, None)
    assert [lesion["score"] for lesion in picture["lesions"]] == [0.9, 0.8]
    wanted = softmax(np.asarray([[4.0, 0.0, 0.0]], dtype=np.float32))[0]
    for lesion in picture["lesions"]:
        assert list(lesion["probabilities"]) == list(CLASSES)
        np.testing.assert_allclose(list(lesion["probabilities"].values()), wanted, atol=1e-5)
    assert said["models"]["classifier"].startswith("colours@") and said["unreadable"] == []


def test_boxes_are_in_px_of_the_picture(examine, shot):
    (picture,) = json.loads(examine(shot, as_json=True))["pictures"]
    scale, top = 640 / 416, (416 - 312) / 2  # the letterbox of 640 × 480 in 416 × 416
    wanted = np.asarray([100, 100 - top, 150, 150 - top]) * scale
    np.testing.assert_allclose(picture["lesions"][0]["box"], wanted, atol=0.01)


def test_a_close_up_is_classified_as_it_is_without_a_detector(examine, tmp_path):
    image = np.full((100, 300, 3), (0, 0, 255), dtype=np.uint8)
    image[:, 100:200] = (0, 255, 0)  # the middle square is green
    cv2.imwrite(str(tmp_path / "close.png"), image)
    said = json.loads(examine("close.png", whole_image=True, as_json=True, detector="no such model"))
    (lesion,) = said["pictures"][0]["lesions"]
    assert (said["models"]["detector"], lesion["score"], lesion["box"]) == (None, None, [0, 0, 300, 100])
    assert max(lesion["probabilities"], key=lesion["probabilities"].get) == "NV"


def test_people_get_lines_and_a_drawn_result(examine, shot, tmp_path):
    lines = examine(shot).splitlines()
    assert lines[0].endswith("shot ü 1.png  640 x 480 px: 2 lesions")
    assert "score 0.90  MEL 0.96  NV 0.02  UNK 0.02" in lines[1]
    drawn = cv2.imread(str(tmp_path / "derma-data" / "classified" / "shot ü 1.jpg"))
    assert drawn.shape == (480, 640, 3) and (drawn[..., 1] > 150).any(), "boxes are green"
    assert lines[-1] == "  drawn: derma-data/classified/shot ü 1.jpg", "below this folder: as one would type it"


def test_an_explanation_says_where_the_class_is_seen_and_shows_it(examine, tmp_path):
    image = np.full((320, 320, 3), (255, 0, 0), dtype=np.uint8)
    image[40:120, 200:280] = (0, 0, 255)  # the only red
    cv2.imwrite(str(tmp_path / "spot.png"), image)
    lines = examine("spot.png", whole_image=True, explain=True)
    assert "UNK loses at most" in lines
    drawn = cv2.imread(str(tmp_path / "derma-data" / "classified" / "spot.jpg"))
    assert drawn.shape == (320, 320 + 2 * 224, 3)
    image[:] = (0, 0, 0)
    image[40:120, 200:280] = (0, 0, 255)
    cv2.imwrite(str(tmp_path / "spot.png"), image)
    (picture,) = json.loads(examine("spot.png", whole_image=True, explain=True, as_json=True))["pictures"]
    why = picture["lesions"][0]["explanation"]
    assert why["class"] == "MEL" and why["largest_loss"] > 0
    assert 160 <= why["at"][0] <= 320 and 0 <= why["at"][1] <= 160


def test_where_nothing_is_found_the_way_for_close_ups_is_named(colours, shot, tmp_path, capsys):
    blind = fake_detector(tmp_path / "blind", boxes=[[0.1, 0.1, 0.2, 0.2]], scores=[[0.0]])
    classify([str(shot)], detector=str(blind), classifier=str(colours), pictures=tmp_path)
    said = capsys.readouterr()
    assert "0 lesions" in said.out and "--whole-image" in said.err


def test_a_view_tells_other_classes(examine, shot):
    (picture,) = json.loads(examine(shot, view="blog", as_json=True))["pictures"]
    told = picture["lesions"][0]["view"]
    assert set(told) == {"benign", "unknown", "melanoma"} and told["melanoma"] > 0.9
    assert "melanoma 0.96" in examine(shot, view="blog")


def test_a_view_that_does_not_exist_is_refused_before_anything_is_drawn(examine, shot, tmp_path):
    with pytest.raises(ConfigError, match="there is no view"):
        examine(shot, view="lives")
    assert not (tmp_path / "derma-data").exists()


def test_folders_and_quoted_patterns_are_read_in_order(examine, shot):
    for name in ("a10.png", "a9.png", "note.txt"):
        (shot.parent / name).write_bytes(shot.read_bytes())
    files = [p["file"] for p in json.loads(examine(shot.parent / "a*.png", shot.parent, as_json=True))["pictures"]]
    assert [f.rpartition("/")[2] for f in files] == ["a9.png", "a10.png", "a9.png", "a10.png", "shot ü 1.png"]


def test_two_pictures_of_one_name_are_drawn_into_two_files(examine, shot, tmp_path):
    (tmp_path / "shot ü 1.png").write_bytes(shot.read_bytes())
    out = tmp_path / "out"
    said = json.loads(examine(shot, tmp_path / "shot ü 1.png", pictures=out, as_json=True))
    assert [p["picture"] for p in said["pictures"]] == [str(out / "shot ü 1.jpg"), str(out / "shot ü 1-2.jpg")]
    assert all(cv2.imread(str(file)) is not None for file in out.iterdir())


def test_one_bad_picture_among_many_is_told_and_the_others_are_examined(examine, shot, capsys, tmp_path):
    (tmp_path / "liar.jpg").write_text("no picture")
    with pytest.raises(SourceError, match=r"nowhere\.png; 2 of 3 pictures were not examined"):
        examine(tmp_path / "liar.jpg", shot, "nowhere.png", as_json=True)
    out, errors = capsys.readouterr()
    said = json.loads(out)
    assert [p["file"] for p in said["pictures"]] == [str(shot)]
    assert [bad["file"] for bad in said["unreadable"]] == [str(tmp_path / "liar.jpg"), "nowhere.png"]
    assert "liar.jpg is not a picture" in errors


@pytest.mark.parametrize(
    ("image", "words"),
    [("exam.mp4", "is no picture; `derma up"), ("nowhere.png", "there is no file"), ("f", "no pictures")],
)
def test_what_is_no_picture_is_one_line(examine, tmp_path, image, words):
    writer = cv2.VideoWriter(str(tmp_path / "exam.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    (tmp_path / "f").mkdir()
    with pytest.raises(SourceError, match=words):
        examine(tmp_path / image)


def test_a_detector_is_no_classifier(examine, shot, detector_dir):
    with pytest.raises(ModelError, match="a classifier is needed here"):
        examine(shot, classifier=str(detector_dir))


def test_a_place_that_cannot_be_written_is_said_before_the_work(examine, shot):
    with pytest.raises(ResourceError, match="choose another place with --pictures"):
        examine(shot, pictures=Path("/proc/nowhere"))


def test_it_says_once_what_it_is(examine, shot, capsys):
    classify([str(shot), str(shot)], whole_image=True, as_json=True)
    assert capsys.readouterr().err.count("research software") == 1


def test_wide_pictures_are_looked_at_in_tiles_when_asked(examine, tmp_path):
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((416, 1664, 3), 90, dtype=np.uint8))
    (whole,) = json.loads(examine("wide.png", as_json=True))["pictures"]
    (tiled,) = json.loads(examine("wide.png", tile="416", as_json=True))["pictures"]
    assert len(tiled["lesions"]) > len(whole["lesions"])


def test_only_the_surest_lesions_are_explained_so_that_the_time_is_bounded(examine, tmp_path):
    boxes = [[10 + 60 * i, 100, 50 + 60 * i, 140] for i in range(6)]
    many = fake_detector(tmp_path / "many", boxes=boxes, scores=[[0.9 - i / 100] for i in range(6)])
    cv2.imwrite(str(tmp_path / "many.png"), np.full((416, 416, 3), 90, dtype=np.uint8))
    (picture,) = json.loads(examine("many.png", detector=str(many), explain=True, as_json=True))["pictures"]
    explained = ["explanation" in lesion for lesion in picture["lesions"]]
    assert explained == [True] * MOST_EXPLAINED + [False] * (6 - MOST_EXPLAINED)
