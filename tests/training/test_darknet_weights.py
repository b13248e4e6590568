"""Darknet's .weights files: byte for byte there and back, and what is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
onnx = pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")

from support.darknet import random_network, thinned  # noqa: E402

from derma_common.errors import ModelError  # noqa: E402
from derma_training.detector.cfg import Convolutional  # noqa: E402
from derma_training.detector.darknet_weights import Header, layer_floats, load_weights, save_weights  # noqa: E402
from derma_training.detector.export import draft_card, export  # noqa: E402
from derma_training.detector.layers import Darknet  # noqa: E402
from derma_training.detector.networks import network  # noqa: E402
from derma_training.detector.start_weights import start_from  # noqa: E402

pytestmark = pytest.mark.train


def thin(classes=2, name="yolov4-tiny", by=8):
    return thinned(network(name, classes, 64, 64), by)


def numbers(config, seed=0):
    """Return as many plausible numbers as a network has: none negative, so that variances are none."""
    return np.random.default_rng(seed).uniform(0.1, 1, sum(layer_floats(config))).astype("<f4")


@pytest.fixture
def weights(tmp_path):
    """Return a function that writes a .weights file of a header and numbers."""

    def write(floats, header=b""):
        file = tmp_path / "some.weights"
        file.write_bytes((header or Header(seen=7).packed()) + np.asarray(floats, "<f4").tobytes())
        return file

    return write


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("<3iQ", 0, 2, 5, 2**40 + 3),
        struct.pack("<3iQ", 1, 0, 0, 0),
        struct.pack("<3iI", 0, 1, 0, 123_456),
    ],
)
@pytest.mark.parametrize("name", ["yolov4", "yolov4-tiny"])
def test_a_file_is_written_back_byte_for_byte(weights, tmp_path, header, name):
    config = thin(3, name)
    file = weights(numbers(config), header)
    net = Darknet(config)
    save_weights(net, tmp_path / "again.weights", load_weights(net, file))
    assert (tmp_path / "again.weights").read_bytes() == file.read_bytes()


def test_numbers_go_where_darknet_has_them(weights):
    config = thin()
    floats = numbers(config)
    net = Darknet(config)
    assert load_weights(net, weights(floats)) == Header(0, 2, 5, 7)
    first, n = net.conv_units()[0], config.layers[0].filters
    parts = [first.norm.bias, first.norm.weight, first.norm.running_mean, first.norm.running_var]
    for place, part in enumerate(parts):
        assert np.array_equal(part.detach().numpy(), floats[place * n : (place + 1) * n])
    assert np.array_equal(first.conv.weight.detach().numpy().ravel(), floats[4 * n : 4 * n + n * 27])
    last = net.head_units()[-1]
    assert np.array_equal(last.conv.weight.detach().numpy().ravel(), floats[-last.conv.weight.numel() :])


def test_a_file_of_another_length_is_refused(weights):
    config = thin()
    for floats in (numbers(config)[:-1], np.append(numbers(config), 1)):
        with pytest.raises(ModelError, match="truncated or of another network"):
            load_weights(Darknet(config), weights(floats))
    with pytest.raises(ModelError, match="truncated or of another network"):
        load_weights(Darknet(thin(name="yolov4")), weights(numbers(config)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "too short"),
        (Header().packed()[:17], "or a truncated one"),
        (Header().packed() + bytes(6), "or a truncated one"),
        (b"PK\x03\x04" + bytes(40), "no Darknet .weights file"),
    ],
)
def test_what_is_no_weights_file_is_refused(tmp_path, content, message):
    file = tmp_path / "some.weights"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_weights(Darknet(thin()), file)
    with pytest.raises(ModelError, match=r"missing\.weights cannot be read: No such file"):
        start_from(Darknet(thin()), tmp_path / "missing.weights")


def test_damaged_numbers_and_those_of_another_network_of_that_length_are_refused(weights):
    config = thin()
    floats = numbers(config)
    floats[5] = np.nan
    with pytest.raises(ModelError, match="not finite"):
        load_weights(Darknet(config), weights(floats))
    with pytest.raises(ModelError, match="negative variances"):
        load_weights(Darknet(config), weights(-numbers(config)))


@pytest.mark.parametrize(("name", "cut", "said"), [("yolov4-tiny", 29, "17 of 21"), ("yolov4", 137, "92 of 110")])
def test_training_starts_from_a_published_cut_off(weights, name, cut, said):
    config = thin(name=name)
    floats = numbers(config)
    count = sum(isinstance(layer, Convolutional) for layer in config.layers[:cut])
    net, whole = Darknet(config), Darknet(config)
    load_weights(whole, weights(floats))
    file = weights(floats[: sum(layer_floats(config)[:count])])
    assert start_from(net, file).startswith(f"the first {said} convolutions from ")
    for number, (unit, wanted) in enumerate(zip(net.conv_units(), whole.conv_units(), strict=True)):
        assert torch.equal(unit.conv.weight, wanted.conv.weight) == (number < count)


@pytest.mark.parametrize("name", ["yolov4", "yolov4-tiny"])
def test_training_starts_from_a_network_of_other_classes_without_its_heads(weights, name):
    known, config = thin(80, name), thin(1, name)
    floats = numbers(known)
    whole, net = Darknet(known), Darknet(config)
    load_weights(whole, weights(floats))
    heads = len(config.heads)
    assert f"all convolutions but the {heads} heads from" in start_from(net, weights(floats))
    for unit, wanted in zip(net.conv_units(), whole.conv_units(), strict=True):
        if unit not in net.head_units():
            assert torch.equal(unit.conv.weight, wanted.conv.weight)
            assert unit.norm.running_var is not None and torch.equal(unit.norm.running_var, wanted.norm.running_var)
    assert "knows 80 classes" in start_from(Darknet(config), weights(floats))


def test_a_file_that_fits_no_cut_and_no_classes_starts_nothing(weights):
    floats = numbers(thin())
    with pytest.raises(ModelError, match="no cut after a layer and no other number of classes"):
        start_from(Darknet(thin()), weights(floats[:-3]))


def test_training_starts_from_an_exported_model_that_computes_the_same(tmp_path):
    net = random_network(thin())
    export(net, tmp_path, draft_card("thin", net, 64, 64, ("a", "b"), "none"))
    again = Darknet(thin()).eval()
    assert "all 21 convolutions" in start_from(again, tmp_path / "model.onnx")
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for raw, wanted in zip(again(image), net(image), strict=True):
            assert torch.allclose(raw, wanted, atol=1e-4)
    for other in (thin(3), thin(name="yolov4")):
        with pytest.raises(ModelError, match="of another network"):
            start_from(Darknet(other), tmp_path / "model.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no onnx")
    with pytest.raises(ModelError, match="cannot be read as ONNX"):
        start_from(again, tmp_path / "broken.onnx")
