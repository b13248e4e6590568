"""`derma models`: what there is, what it may be used for, and whether it is whole."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from derma_cli.models import licence_of, list_models, show, verify
from derma_common.errors import ModelError
from derma_common.inference.card import CARD_FILE, read_card, write_card
from derma_common.shipped import shipped_models


def test_the_shipped_models_are_listed_with_their_licences(capsys):
    list_models()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(shipped_models()) >= 2
    for line, directory in zip(lines, shipped_models(), strict=True):
        card = read_card(directory)
        assert card.name in line and card.kind in line and f"{card.input.width}x{card.input.height}" in line


@pytest.mark.parametrize(
    ("licence", "forbids"),
    [("CC BY-NC 4.0", True), ("CC-BY-NC-SA-4.0", True), ("Non-commercial research", True), ("Apache-2.0", False),
     ("CC BY 4.0", False), ("CC0", False)],
)  # fmt: skip
def test_non_commercial_weights_are_called_that(detector_dir, licence, forbids):
    said = licence_of(replace(read_card(detector_dir), licence=licence))
    assert said.startswith("non-commercial weights") is forbids and licence in said


def test_a_card_is_shown_whole_for_people_and_programs(detector_dir, capsys):
    figures = {"held out": {"easy": {"ap50": 0.97912, "n": 3}}, "interval_95": [0.25, 0.5], "date": "today"}
    write_card(replace(read_card(detector_dir), figures=figures, notes=("a limit",)), detector_dir)
    show(str(detector_dir))
    text = capsys.readouterr().out
    for words in (
        "416 x 416 px",
        "score 0.25, IoU 0.45",
        "- a limit",
        "easy: ap50 0.9791, n 3",
        "interval_95: 0.25–0.5",
    ):
        assert words in text
    show(str(detector_dir), as_json=True)
    assert json.loads(capsys.readouterr().out)["figures"] == figures


def test_shipped_models_are_whole(capsys):
    verify()
    assert all(line.startswith("good") for line in capsys.readouterr().out.splitlines())


def test_a_network_with_one_byte_changed_is_found_and_the_others_are_still_told(detector_dir, classifier_dir, capsys):
    data = bytearray((classifier_dir / "behaviour.json").read_bytes())
    data[5] ^= 1
    (classifier_dir / "behaviour.json").write_bytes(data)
    with pytest.raises(ModelError, match=r"is not the file of its card .* copy the model anew"):
        verify([str(classifier_dir), str(detector_dir)])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["BAD", "good"]


def test_what_is_wrong_is_told_to_programs_too(detector_dir, capsys):
    (detector_dir / "behaviour.json").unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        verify([str(detector_dir)], as_json=True)
    (row,) = json.loads(capsys.readouterr().out)
    assert row["good"] is False and "cannot be read" in row["problem"]


def test_an_unknown_name_says_which_there_are(tmp_path):
    with pytest.raises(ModelError, match=r"there is no model 'tiny'.*yolov4-tiny-mole"):
        show("tiny")
    (tmp_path / CARD_FILE).write_text("{}")
    with pytest.raises(ModelError, match="incomplete"):
        show(str(tmp_path))
