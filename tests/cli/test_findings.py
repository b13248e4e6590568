"""`derma findings --view`: the stored probabilities, told in other classes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.builders import classifications, detections, frame

from derma_cli.findings import findings
from derma_common.errors import ConfigError
from derma_common.inference.card import read_card
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
    classified, missing = shown(capsys, data_dir=data_dir, view="blog")
    assert classified.endswith("unknown 0.49  benign 0.46  melanoma 0.05")
    assert missing.endswith("not classified (poison)")


def test_a_view_of_a_users_file_is_told(capsys, data_dir, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"views": {"mine": {"mole": ["NV"], "other": ["suspicious"]}}}))
    assert shown(capsys, data_dir=data_dir, view=str(file))[0].endswith("other 0.34  mole 0.30")


@pytest.mark.parametrize("view", ["lives", "no.json#live"])
def test_a_view_that_does_not_exist_is_refused_before_anything_is_read(view):
    with pytest.raises(ConfigError, match="there is no view"):
        findings(data_dir="/nowhere", view=view)


def test_a_view_does_not_go_with_pictures(data_dir, tmp_path):
    with pytest.raises(ConfigError, match="neither --pictures nor --truth"):
        findings(data_dir=data_dir, view="live", pictures=tmp_path)
