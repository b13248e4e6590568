"""`derma findings`: what is stored as a table, and its probabilities told in other classes."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from support.builders import classifications, detections, frame

from derma_cli.findings import findings
from derma_cli.pictures import draw_pictures
from derma_common.errors import ConfigError, ResourceError
from derma_common.inference.card import read_card
from derma_common.store import StoreReader
from derma_sink.join import Joins
from derma_sink.outcome import closed, delivered
from derma_sink.store import StoreWriter

ISIC = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
ROW = (0.05, 0.30, 0.10, 0.07, 0.11, 0.02, 0.03, 0.12, 0.20)


@pytest.fixture
def data_dir(tmp_path, detector_dir, classifier_dir):
    """A database with one classified finding and one that is not."""
    store = StoreWriter(tmp_path / "data" / "derma.db", "run1")
    store.begin_run(7, "boot", "0", [("cam0", "a.mp4", False)], read_card(detector_dir), read_card(classifier_dir))
    joins, first, second = Joins(), frame(0), frame(1)
    joins.add(detections(first), 1)
    joins.add(replace(classifications(first), probabilities=(ROW,), classes=ISIC), 2)
    joins.add(detections(second), 3)
    outcomes = [delivered(joins.pop(("cam0", 0))), closed("cam0", 1, "poison", "", joins.pop(("cam0", 1)), 4)]
    store.commit(outcomes, [])
    store.close()
    return str(tmp_path / "data")


def shown(capsys, **options):
    """Return the lines that the command prints."""
    findings(**options)
    return capsys.readouterr().out.splitlines()


def test_a_view_is_added_to_the_json_lines(capsys, data_dir):
    classified, missing = map(json.loads, shown(capsys, data_dir=data_dir, as_json=True, view="live"))
    assert classified["view"] == {
        "benign": 0.46, "suspicious for melanoma": 0.05, "other suspicious": 0.29, "unknown": 0.2,
    }  # fmt: skip
    assert classified["probabilities"] == dict(zip(ISIC, ROW, strict=True))
    assert (missing["view"], missing["missing"]) == ({}, "poison")


def test_without_a_view_the_json_lines_have_none(capsys, data_dir):
    assert all("view" not in json.loads(line) for line in shown(capsys, data_dir=data_dir, as_json=True))


def test_a_view_replaces_the_classes_of_the_lines(capsys, data_dir):
    _, classified, missing = shown(capsys, data_dir=data_dir, view="blog")
    assert classified.endswith("unknown 0.49  benign 0.46  melanoma 0.05")
    assert missing.endswith("not classified (poison)")


def test_a_view_of_a_users_file_is_told(capsys, data_dir, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"views": {"mine": {"mole": ["NV"], "other": ["suspicious"]}}}))
    assert shown(capsys, data_dir=data_dir, view=str(file))[1].endswith("other 0.34  mole 0.30")


@pytest.mark.parametrize("view", ["lives", "no.json#live"])
def test_a_view_that_does_not_exist_is_refused_before_anything_is_read(view):
    with pytest.raises(ConfigError, match="there is no view"):
        findings(data_dir="/nowhere", view=view)


def test_a_view_does_not_go_with_a_truth(data_dir, tmp_path):
    with pytest.raises(ConfigError, match="leave out one of the two"):
        findings(data_dir=data_dir, view="live", truth=tmp_path)


def test_columns_have_names_above_them(capsys, data_dir):
    head, first, _ = shown(capsys, data_dir=data_dir)
    assert head.split() == ["camera", "picture", "x1", "y1", "x2", "y2", "score", "likeliest", "classes"]
    assert head.index("score") + len("score") == first.index("  NV"), "numbers end below their names"


def test_a_run_or_camera_that_is_not_there_is_told_with_those_that_are(data_dir):
    with pytest.raises(ResourceError, match="no run 'run2'; the latest are run1"):
        findings(data_dir=data_dir, run="run2")
    with pytest.raises(ConfigError, match="no camera 'left'; it has cam0"):
        findings(data_dir=data_dir, camera="left")


def test_a_run_that_found_nothing_says_so(capsys, tmp_path, detector_dir, classifier_dir):
    store = StoreWriter(tmp_path / "derma.db", "run1")
    store.begin_run(7, "boot", "0", [("cam0", "a.mp4", False)], read_card(detector_dir), read_card(classifier_dir))
    joins = Joins()
    joins.add(detections(frame(0), n=0), 1)
    store.commit([delivered(joins.pop(("cam0", 0)))], [])
    store.close()
    findings(data_dir=str(tmp_path))
    assert capsys.readouterr() == ("", "run run1: no lesion was found (pictures examined: 1)\n")


def test_while_a_recording_is_drawn_it_is_said_how_far_it_is(tmp_path, monkeypatch, detector_dir, classifier_dir):
    monkeypatch.setattr("derma_cli.pictures.TELL_EVERY_S", 0.0)
    store = StoreWriter(tmp_path / "derma.db", "run1")
    source = "synthetic://?frames=3&width=64&height=64"
    store.begin_run(7, "boot", "0", [("cam0", source, False)], read_card(detector_dir), read_card(classifier_dir))
    store.close()
    with StoreReader(tmp_path / "derma.db") as reader:
        lines = list(draw_pictures(reader, "run1", None, tmp_path))
    file = tmp_path / "cam0.mp4"
    assert lines == [*(f"{file}: {n} frames so far" for n in (1, 2, 3)), f"{file}: 3 frames"]


def test_pictures_are_drawn_with_the_classes_of_a_view(tmp_path, detector_dir, classifier_dir):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((120, 160, 3), 90, dtype=np.uint8))
    store = StoreWriter(tmp_path / "derma.db", "run1")
    source = str(tmp_path / "a.png")
    store.begin_run(7, "boot", "0", [("cam0", source, False)], read_card(detector_dir), read_card(classifier_dir))
    joins, only = Joins(), frame(0)
    joins.add(replace(detections(only), boxes=((40.0, 40.0, 120.0, 100.0),)), 1)
    joins.add(replace(classifications(only), probabilities=(ROW,), classes=ISIC), 2)
    store.commit([delivered(joins.pop(("cam0", 0)))], [])
    store.close()
    told = []
    with StoreReader(tmp_path / "derma.db") as reader:
        for name, view in (("plain", dict), ("viewed", lambda p: told.append(p) or {})):
            list(draw_pictures(reader, "run1", None, tmp_path / name, view))
    plain, viewed = (cv2.imread(str(tmp_path / name / "cam0" / "a.jpg")).astype(int) for name in ("plain", "viewed"))
    green = [(image[..., 1] - image[..., 2] > 60).any() for image in (plain, viewed)]
    assert green == [True, False], "a box without classes is grey"
    assert told == [pytest.approx(dict(zip(ISIC, ROW, strict=True)))]
