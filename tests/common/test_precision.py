"""Networks in fp16 and int8 for TensorRT: valid ONNX that says what the fp32 network says."""

from __future__ import annotations

import numpy as np
import pytest

from derma_common.errors import ModelError
from derma_common.inference.card import read_card
from derma_common.inference.onnx import OnnxRunner
from derma_common.inference.precision import converted
from derma_common.shipped import shipped

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from derma_common.inference.half import to_half  # noqa: E402

NOISE = [np.random.default_rng(i).integers(0, 256, (80, 60, 3), dtype=np.uint8) for i in range(2)]
MODELS = ("yolov4-tiny-mole", "efficientnet-b0-skin", "mobilenetv2-skin")


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    folder = shipped("models") / request.param
    card = read_card(folder)
    return card, folder / card.file


def batch(card):
    shape = (1, 3, card.input.height, card.input.width)
    return {card.input.name: np.random.default_rng(0).random(shape, dtype=np.float32)}


def types_of(data):
    """Map each tensor of a network to its type, as ONNX' own checker infers them; the network is checked."""
    network = onnx.load_from_string(data)
    onnx.checker.check_model(network, full_check=True)
    graph = onnx.shape_inference.infer_shapes(network).graph
    values = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
    return graph, values


def test_fp16_calculates_in_half_precision_and_gives_and_takes_float32(model):
    card, file = model
    graph, types = types_of(converted(file, card, "fp16"))
    ends = [types[v.name] for v in (*graph.input, *graph.output)]
    assert ends == [TensorProto.FLOAT] * len(ends)
    convolved = {types[node.output[0]] for node in graph.node if node.op_type == "Conv"}
    assert convolved == {TensorProto.FLOAT16}


def test_fp16_says_what_fp32_says(model):
    card, file = model
    with OnnxRunner(card, file, 1) as exact, OnnxRunner(card, converted(file, card, "fp16"), 1) as half:
        given, wanted = half.infer(batch(card)), exact.infer(batch(card))
    for name, array in wanted.items():
        assert given[name].dtype == np.float32
        # half precision has 11 bits; errors of some hundred layers add up, hardly
        assert np.abs(given[name] - array).max() <= 2e-2 * np.abs(array).max(), name


def test_boxes_are_decoded_in_float32():
    card = read_card(shipped("models") / MODELS[0])
    graph, types = types_of(converted(shipped("models") / MODELS[0] / card.file, card, "fp16"))
    decoded = [node for node in graph.node if node.op_type in ("Exp", "Sigmoid")]
    assert decoded
    assert {types[node.output[0]] for node in decoded} == {TensorProto.FLOAT}


def test_fp32_is_the_file_itself(model):
    card, file = model
    assert converted(file, card, "fp32") == file.read_bytes()


@pytest.mark.parametrize(("name", "heads"), [(MODELS[0], 2), pytest.param(MODELS[1], 1, marks=pytest.mark.slow)])
def test_int8_is_symmetric_by_channel_and_leaves_the_last_convolutions_in_float(name, heads):
    folder = shipped("models") / name
    card = read_card(folder)
    graph, _ = types_of(converted(folder / card.file, card, "int8", NOISE))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scaling = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert all(stored[node.input[2]].dtype == np.int8 for node in scaling), "TensorRT takes no uint8, no int32 bias"
    assert all((stored[node.input[2]] == 0).all() for node in scaling)
    weights = [node for node in scaling if node.input[0] in stored]
    assert all(stored[node.input[1]].shape == (len(stored[node.input[0]]),) for node in weights)
    scaled = {node.output[0] for node in scaling}
    in_float = [node for node in graph.node if node.op_type == "Conv" and not scaled & set(node.input)]
    assert len(in_float) == heads


def test_int8_needs_pictures(model):
    card, file = model
    with pytest.raises(ModelError, match="must be calibrated on pictures, and there is none"):
        converted(file, card, "int8", [])


def test_an_int8_model_for_cpus_is_refused():
    folder = shipped("models") / "yolov4-tiny-mole-int8"
    card = read_card(folder)
    with pytest.raises(ModelError, match="int8 model for CPUs; on a GPU use the fp32 one"):
        converted(folder / card.file, card, "fp16")


def tiny(nodes, weights, outputs=("y",)):
    """A network x (1, 4) -> outputs, checked."""
    graph = helper.make_graph(
        nodes, "tiny", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in outputs],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()],
    )  # fmt: skip
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(network, full_check=True)
    return network


def test_a_tensor_that_both_kinds_read_is_cast_once():
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["h"], "half"),
        helper.make_node("Add", ["h", "w"], ["a"], "float one"),
        helper.make_node("Sub", ["h", "w"], ["b"], "float two"),
        helper.make_node("Mul", ["a", "b"], ["y"], "half again"),
    ]
    network = to_half(tiny(nodes, {"w": [1, 2, 3, 4]}), ["float one", "float two"])
    onnx.checker.check_model(network, full_check=True)
    casts = [node.output[0] for node in network.graph.node if node.op_type == "Cast"]
    assert len(casts) == len(set(casts)) == 5, "x, h, a and b, and y"


def test_an_output_that_others_read_too_stays_float32():
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"], "a"), helper.make_node("Add", ["y", "w"], ["z"], "b")]
    network = to_half(tiny(nodes, {"w": [1, 2, 3, 4]}, ("y", "z")), [])
    onnx.checker.check_model(network, full_check=True)
    assert [output.type.tensor_type.elem_type for output in network.graph.output] == [TensorProto.FLOAT] * 2


def test_the_network_that_was_given_is_left_as_it_was():
    network = tiny([helper.make_node("Mul", ["x", "w"], ["y"], "a")], {"w": [1, 2, 3, 4]})
    before = network.SerializeToString()
    to_half(network, [])
    assert network.SerializeToString() == before


def test_a_weight_too_large_for_fp16_is_one_line():
    network = tiny([helper.make_node("Mul", ["x", "w"], ["y"], "a")], {"w": [1, 2, 3, 1e5]})
    with pytest.raises(ModelError, match="too large for fp16; use fp32"):
        to_half(network, [])
