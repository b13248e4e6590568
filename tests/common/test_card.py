"""Model cards: a model that is not what its card says is refused in one clear line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.errors import ModelError
from derma_common.inference.card import ModelCard, read_card, verified_file, write_card
from derma_common.inference.opening import open_runner
from derma_common.shipped import model_dir, shipped


def change(directory, **changes):
    """Change fields of a card; None takes one away."""
    card = json.loads((directory / "card.json").read_text()) | changes
    (directory / "card.json").write_text(json.dumps({k: v for k, v in card.items() if v is not None}))


def refused(directory, kind="detector"):
    """Return the line with which the model is refused."""
    with pytest.raises(ModelError) as caught:
        open_runner(directory, kind, 1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_card_comes_back_as_it_was_written(detector_dir, tmp_path):
    card = read_card(detector_dir)
    write_card(card, tmp_path)
    assert read_card(tmp_path) == card
    assert [p.name for p in tmp_path.glob("card*")] == ["card.json"]


def test_a_model_is_recorded_by_name_and_hash(detector_dir):
    card = read_card(detector_dir)
    assert card.id == f"detector@{card.sha256[:12]}"


def test_a_classifier_may_say_how_often_it_saw_each_class_and_give_features(classifier_dir):
    counts = {"benign": 70, "melanoma": 20, "unknown": 10}
    change(classifier_dir, class_counts=counts, outputs=["logits", "features"])
    card = read_card(classifier_dir)
    assert (card.class_counts, card.outputs) == (counts, ("logits", "features"))


def test_a_changed_network_file_is_refused(detector_dir):
    with (detector_dir / "behaviour.json").open("a") as file:
        file.write(" ")
    assert "is not the file of its card" in refused(detector_dir)


def test_a_missing_network_file_is_refused(detector_dir):
    (detector_dir / "behaviour.json").unlink()
    assert "cannot be read: No such file" in refused(detector_dir)


def test_a_model_of_the_other_kind_is_refused(detector_dir):
    assert "is a detector, a classifier is needed here" in refused(detector_dir, "classifier")


def test_a_folder_without_a_card_is_no_model(tmp_path):
    assert "it has no card.json" in refused(tmp_path)


def test_a_runner_that_does_not_exist_is_refused(detector_dir):
    change(detector_dir, runner="tensorflow")
    assert "no runner is called 'tensorflow' (there are: onnx, fake)" in refused(detector_dir)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", '"card"', "\x00"])
def test_a_card_that_is_no_object_is_refused(detector_dir, text):
    (detector_dir / "card.json").write_text(text)
    refused(detector_dir)


def test_a_card_that_is_no_text_is_refused(detector_dir):
    (detector_dir / "card.json").write_bytes(b"\xff\xfe{}")
    refused(detector_dir)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"licnece": "MIT", "zoo": 1}, "has unknown fields: licnece, zoo"),
        ({"licence": None}, "licence"),
        ({"input": None}, "incomplete"),
        ({"input": 5}, "incomplete"),
        ({"input": {"name": "image", "width": 8, "height": 8, "depth": 3}}, "depth"),
        ({"input": {"name": "image", "width": 0, "height": 8}}, "input width, height and max_batch must be positive"),
        ({"input": {"name": "image", "width": "8", "height": 8}}, "incomplete or has a value of the wrong type"),
        (
            {"input": {"name": "image", "width": 8, "height": 8, "std": [0, 1, 1]}},
            "std and temperature must be positive",
        ),
        ({"input": {"name": "image", "width": 8, "height": 8, "mean": [0.5]}}, "mean and std"),
        ({"kind": "segmenter"}, "kind 'segmenter' is neither detector nor classifier"),
        ({"classes": []}, "classes is empty"),
        ({"classes": 5}, "wrong type"),
        ({"file": "../other/network"}, "must be a plain name beside the card"),
        ({"file": "/etc/passwd"}, "must be a plain name beside the card"),
        ({"file": 5}, "wrong type"),
        ({"sha256": "abc"}, "sha256 must have 64 hex digits"),
        ({"sha256": 5}, "wrong type"),
        ({"temperature": 0}, "std and temperature must be positive"),
        ({"temperature": float("nan")}, "std and temperature must be positive"),
        ({"temperature": "hot"}, "wrong type"),
        ({"class_counts": {"lesion": 0}}, "class_counts must be whole positive numbers"),
        ({"class_counts": {"lesion": 2.5}}, "class_counts must be whole positive numbers"),
        ({"class_counts": {"mole": 3}}, "class_counts must name every class"),
        ({"class_counts": [3]}, "class_counts must name every class"),
    ],
)
def test_a_wrong_field_is_named(detector_dir, changes, says):
    change(detector_dir, **changes)
    assert says in refused(detector_dir)


FIELDS = list(ModelCard.__dataclass_fields__)
VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.lists(st.integers(), max_size=3)
)


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=3))
def test_a_card_of_any_content_is_read_or_refused_in_one_line(detector_dir, changes):
    before = (detector_dir / "card.json").read_text()
    change(detector_dir, **changes)
    try:
        assert isinstance(read_card(detector_dir), ModelCard)
    except ModelError as error:
        assert "\n" not in str(error)
    finally:
        (detector_dir / "card.json").write_text(before)


def test_a_model_is_named_by_its_path(detector_dir):
    assert model_dir(str(detector_dir)) == detector_dir.resolve()


def test_a_model_that_does_not_exist_is_refused_with_those_that_do(tmp_path):
    with pytest.raises(ModelError, match=r"there is no model 'yolo': neither a folder with card\.json nor one of"):
        model_dir("yolo")


SHIPPED = sorted(path.parent for path in shipped("models").glob("*/card.json"))


@pytest.mark.parametrize("directory", SHIPPED, ids=lambda path: path.name)
def test_a_shipped_model_is_found_by_name_and_is_the_file_of_its_card(directory):
    card = read_card(directory)
    assert model_dir(card.name) == directory.resolve()
    assert verified_file(card, directory).is_file()
    assert card.licence
    assert card.training_data


def test_verifying_reads_the_whole_file(detector_dir):
    card = read_card(detector_dir)
    with pytest.raises(ModelError, match="sha256"):
        verified_file(replace(card, sha256="0" * 64), detector_dir)
