"""One contract for every runner, over real files: the fake, a tiny ONNX file, and the shipped models.

On a GPU the shipped models run with every runner that it offers. TensorRT's runner is also run without one, over a
stand-in for the runtime and for the device. With GPU_PROMISED in the environment TensorRT must be there.
"""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest
from support import stand_in_tensorrt
from support.host_device import HostDevice
from support.tiny_onnx import mean_colour_classifier

from derma_common.errors import ModelError, ResourceError
from derma_common.inference import tensorrt
from derma_common.inference.card import read_card
from derma_common.inference.choice import TENSORRT, RunnerChoice, usable
from derma_common.inference.fake import fake_classifier, fake_detector
from derma_common.inference.opening import open_runner
from derma_common.inference.probe import probe
from derma_common.inference.runner import PictureRunner
from derma_common.preprocess import cut, letterbox, to_tensor
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
ON_GPU = [path for path in SHIPPED if "int8" not in path.name]
PROMISED = "GPU_PROMISED" in os.environ
GPU_RUNNERS = ("tensorrt", "onnx-cuda", "onnx-tensorrt") if probe().gpus or PROMISED else ()
RUNNERS = [
    *((name, "onnx") for name in MAKERS),
    *((f"shipped {path.name}", "played TensorRT") for path in ON_GPU),
    *((f"shipped {path.name}", runner) for path in ON_GPU for runner in GPU_RUNNERS),
]


@pytest.fixture(params=RUNNERS, ids=" on ".join, scope="module")
def opened(request, tmp_path_factory):
    """Give the card and the opened runner of a model."""
    name, runner = request.param
    directory = MAKERS[name](tmp_path_factory.mktemp("model") / "m")
    with open_on(runner, directory, tmp_path_factory) as opened:
        yield opened.card, opened


def open_on(runner, directory, tmp_path_factory):
    kind = json.loads((directory / "card.json").read_text())["kind"]
    if runner == "onnx":
        return open_runner(directory, kind, threads=1)[1]
    if runner == "played TensorRT":
        return played(directory)
    lacks = usable(probe(), 0)[runner]
    if lacks and runner == TENSORRT and PROMISED:
        pytest.fail(lacks)
    if lacks:
        pytest.skip(lacks)
    engines = tmp_path_factory.mktemp("engines")
    engines.chmod(0o700)
    return open_runner(directory, kind, 1, RunnerChoice(runner, 0, "fp16", engines))[1]


def played(directory, device=HostDevice):
    """Open TensorRT's runner over stand-ins for its runtime and for the GPU."""
    card = read_card(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorrt, "open_device", lambda index: device())
        return tensorrt.TensorRtRunner(
            stand_in_tensorrt, stand_in_tensorrt.Logger(), card, (directory / card.file).read_bytes(), "played",
            RunnerChoice(TENSORRT, 0),
        )  # fmt: skip


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
    # half precision may add up in another order
    near = 1e-4 if runner.name in ("onnx", "fake", "played") else 2e-2 * float(np.abs(outputs[card.outputs[0]]).max())
    for name in card.outputs:
        np.testing.assert_allclose(alone[name][0], outputs[name][-1], rtol=1e-3, atol=near)


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


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_picture_that_is_prepared_where_the_network_runs_gives_the_same(opened):
    card, runner = opened
    if not isinstance(runner, PictureRunner):
        pytest.skip("it takes tensors only")
    spec, picture = card.input, noise(200, 320)
    squares = [(10, 20, 210, 220), (250, 100, 350, 200), (5, 5, 50, 50)][: spec.max_batch]
    fitted, _ = letterbox(picture, spec.width, spec.height)
    crops = [cut(picture, square, spec.width) for square in squares]
    given = (
        (runner.infer_letterboxed(picture), [fitted]),
        (runner.infer_squares(picture, squares), crops),
    )
    for found, images in given:
        wanted = runner.infer({spec.name: to_tensor(images, spec.mean, spec.std)})
        for name in card.outputs:
            # a level of a uint8 value here and there
            np.testing.assert_allclose(found[name], wanted[name], rtol=2e-2, atol=2e-2 * np.abs(wanted[name]).max())


def test_what_an_engine_refuses_is_one_line(tmp_path):
    directory = tiny_onnx(tmp_path / "m")
    (directory / "network.onnx").write_bytes(b"no engine")
    with pytest.raises(ModelError, match="does not load its engine") as caught:
        played(directory)
    assert "\n" not in str(caught.value)


def test_a_gpu_without_room_is_one_line(tmp_path):
    class Full(HostDevice):
        def allocate(self, size):
            raise MemoryError("cuMemAlloc answers CUDA_ERROR_OUT_OF_MEMORY")

    with pytest.raises(ResourceError, match="tiny: the GPU has no room for played: cuMemAlloc answers"):
        played(tiny_onnx(tmp_path / "m"), Full)


def test_an_engine_whose_tensors_are_not_the_cards_is_refused(tmp_path):
    with pytest.raises(ModelError, match="are not its card's"):
        played(tiny_onnx(tmp_path / "m", outputs=["logits", "embedding"]))


def test_closing_twice_does_nothing(tmp_path):
    for maker, kind in ((fake_detector, "detector"), (tiny_onnx, "classifier")):
        _, runner = open_runner(maker(tmp_path / kind), kind, 1)
        runner.close()
        runner.close()
    runner = played(tiny_onnx(tmp_path / "played"))
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
