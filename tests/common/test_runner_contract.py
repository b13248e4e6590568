"""One contract for every runner, over real files: the fake, a tiny ONNX file, and the shipped models."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from support.tiny_onnx import mean_colour_classifier

from derma_common.errors import ModelError
from derma_common.inference.fake import fake_classifier, fake_detector
from derma_common.inference.opening import open_runner
from derma_common.shipped import shipped

MATRIX = np.asarray([[1, 0, 0], [0, 2, 0], [0, 0, -1], [1, 1, 1]], dtype=np.float32)
SHIPPED = [path.parent for path in sorted(shipped("models").glob("*/card.json"))]


def tiny_onnx(directory, **changes):
    directory.mkdir()
    data = mean_colour_classifier(MATRIX, 16)
    (directory / "network.onnx").write_bytes(data)
    card = {
        "name": "tiny", "kind": "classifier", "architecture": "mean colour", "file": "network.onnx",
        "sha256": hashlib.sha256(data).hexdigest(), "licence": "none", "classes": ["red", "green", "blue", "any"],
        "input": {"name": "image", "width": 16, "height": 16, "max_batch": 4}, "outputs": ["logits"],
    }  # fmt: skip
    (directory / "card.json").write_text(json.dumps(card | changes))
    return directory


MAKERS = {"fake detector": fake_detector, "fake classifier": fake_classifier, "tiny onnx": tiny_onnx} | {
    f"shipped {path.name}": (lambda _, path=path: path) for path in SHIPPED
}


@pytest.fixture(params=MAKERS, scope="module")
def opened(request, tmp_path_factory):
    """Give the card and the opened runner of a model."""
    directory = MAKERS[request.param](tmp_path_factory.mktemp("model") / "m")
    kind = json.loads((directory / "card.json").read_text())["kind"]
    card, runner = open_runner(directory, kind, threads=1)
    with runner:
        yield card, runner


def batch(card, n=1, seed=0):
    shape = (n, 3, card.input.height, card.input.width)
    return {card.input.name: np.random.default_rng(seed).random(shape, dtype=np.float32)}


def test_every_output_of_the_card_comes_for_every_picture(opened):
    card, runner = opened
    for n in {1, card.input.max_batch}:
        outputs = runner.infer(batch(card, n))
        assert set(card.outputs) <= set(outputs)
        assert all(len(array) == n and array.dtype == np.float32 for array in outputs.values())


def test_the_outputs_have_the_shapes_of_their_kind(opened):
    card, runner = opened
    outputs = runner.infer(batch(card))
    if card.kind == "classifier":
        assert outputs["logits"].shape == (1, len(card.classes))
    else:
        assert outputs["boxes"].shape[2] == 4
        assert outputs["scores"].shape == (1, outputs["boxes"].shape[1], len(card.classes))
        assert (outputs["scores"] >= 0).all()
        assert (outputs["scores"] <= 1).all()


def test_the_same_pictures_give_the_same_outputs(opened):
    card, runner = opened
    one, again = runner.infer(batch(card)), runner.infer(batch(card))
    for name in card.outputs:
        np.testing.assert_array_equal(one[name], again[name])


def test_a_picture_gives_the_same_alone_and_in_a_batch(opened):
    card, runner = opened
    together = batch(card, card.input.max_batch)
    outputs = runner.infer(together)
    alone = runner.infer({card.input.name: together[card.input.name][-1:]})
    for name in card.outputs:
        np.testing.assert_allclose(alone[name][0], outputs[name][-1], rtol=1e-3, atol=1e-4)


def test_the_input_is_left_as_it_was(opened):
    card, runner = opened
    given = batch(card)
    before = given[card.input.name].copy()
    runner.infer(given)
    np.testing.assert_array_equal(given[card.input.name], before)


@pytest.mark.parametrize(
    "wrong", ["name", "another input", "dtype", "size", "channels", "dimensions", "none", "too many"]
)
def test_a_wrong_input_is_refused(opened, wrong):
    card, runner = opened
    array = batch(card)[card.input.name]
    inputs = {
        "name": {"picture": array},
        "another input": {card.input.name: array, "more": array},
        "dtype": {card.input.name: array.astype(np.float64)},
        "size": {card.input.name: array[:, :, 1:]},
        "channels": {card.input.name: array[:, :2]},
        "dimensions": {card.input.name: array[0]},
        "none": {card.input.name: array[:0]},
        "too many": batch(card, card.input.max_batch + 1),
    }[wrong]
    with pytest.raises(ValueError, match=card.name):
        runner.infer(inputs)


def test_closing_twice_does_nothing(tmp_path):
    for maker, kind in ((fake_detector, "detector"), (tiny_onnx, "classifier")):
        _, runner = open_runner(maker(tmp_path / kind), kind, 1)
        runner.close()
        runner.close()


def test_onnx_runtime_computes_what_the_file_says(tmp_path):
    card, runner = open_runner(tiny_onnx(tmp_path / "m"), "classifier", 1)
    pictures = batch(card, 3)[card.input.name]
    with runner:
        logits = runner.infer({"image": pictures})["logits"]
    np.testing.assert_allclose(logits, pictures.mean(axis=(2, 3)) @ MATRIX.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{"outputs": ["logits", "embedding"]}, {"input": {"name": "picture", "width": 16, "height": 16}}],
    ids=["output", "input"],
)
def test_a_network_whose_tensors_are_not_the_cards_is_refused(tmp_path, changes):
    directory = tiny_onnx(tmp_path / "m", **changes)
    with pytest.raises(ModelError, match="the file has inputs") as caught:
        open_runner(directory, "classifier", 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"no network", mean_colour_classifier(MATRIX, 16)[:100]], ids=["empty", "text", "cut"]
)
def test_a_file_that_is_no_network_is_refused(tmp_path, data):
    directory = tiny_onnx(tmp_path / "m", sha256=hashlib.sha256(data).hexdigest())
    (directory / "network.onnx").write_bytes(data)
    with pytest.raises(ModelError, match="cannot open") as caught:
        open_runner(directory, "classifier", 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[", "[5]", "5"])
def test_a_behaviour_that_is_none_is_refused(tmp_path, text):
    directory = fake_detector(tmp_path / "m")
    (directory / "behaviour.json").write_text(text)
    card = json.loads((directory / "card.json").read_text())
    card["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (directory / "card.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="is no behaviour file"):
        open_runner(directory, "detector", 1)
