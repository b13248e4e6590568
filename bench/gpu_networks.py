"""The networks of `bench/gpu.py`, with random weights where derma ships none: speed does not depend on what they say.

Needs the extra `train` for the networks of `RANDOM`; the matrix network needs `onnx` alone.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from derma_common.inference.card import InputSpec, ModelCard, sha256_of, write_card

MAX_BATCH = 8
DETECTORS = {"yolov4-416": ("yolov4", 416), "yolov4-608": ("yolov4", 608), "yolov4-tiny-416": ("yolov4-tiny", 416)}
CLASSIFIERS = {"efficientnet-b0-224": ("efficientnet_b0", 224), "efficientnet-b4-380": ("efficientnet_b4", 380)}
RANDOM = (*DETECTORS, *CLASSIFIERS)
CHANNELS, SIDE, LAYERS = 1024, 64, 8  # of the matrix network: 69 GFLOP a picture, nearly all of it in products
MATRIX_FLOP = 2 * CHANNELS * CHANNELS * SIDE * SIDE * LAYERS


def random_network(name: str, folder: Path) -> Path:
    """Write the model directory `folder`/`name` of one of RANDOM and return it."""
    directory = folder / name
    directory.mkdir()
    return _detector(name, directory) if name in DETECTORS else _classifier(name, directory)


def _detector(name: str, directory: Path) -> Path:
    import torch

    from derma_training.detector.export import draft_card, export
    from derma_training.detector.layers import Darknet
    from derma_training.detector.networks import network

    architecture, side = DETECTORS[name]
    net = Darknet(network(architecture, 1, side, side))
    for unit in net.conv_units():
        unit.norm.momentum = 1.0  # one pass sets the scale of everything: random weights alone end beyond fp16's range
    with torch.no_grad():
        net.train()(torch.rand(2, 3, side, side))
        for unit in net.head_units():
            unit.conv.weight *= 0.01  # a box's side is an exponential of it
    export(net, directory, draft_card(name, net, side, side, ("lesion",), "none: random weights", MAX_BATCH))
    return directory


def _classifier(name: str, directory: Path) -> Path:
    from derma_training.torchvision_ops import complete_torchvision

    complete_torchvision()
    from derma_training.classifier.export import MODEL_FILE, OUTPUTS, export_onnx
    from derma_training.classifier.network import build

    architecture, side = CLASSIFIERS[name]
    classes = tuple(f"class{n}" for n in range(9))
    export_onnx(build(architecture, len(classes)).eval(), directory / MODEL_FILE, side)
    return _with_card(directory, MODEL_FILE, architecture, side, OUTPUTS, classes)


def matrix_network(folder: Path) -> Path:
    """Write a network of LAYERS products of a CHANNELS² matrix with one of CHANNELS × SIDE², as 1 × 1 convolutions."""
    directory = folder / "matrix"
    directory.mkdir()
    rng = np.random.default_rng(0)
    sizes = [3, *[CHANNELS] * (LAYERS + 1), 2]
    nodes, weights, value = [], [], "image"
    for n, (wide, high) in enumerate(pairwise(sizes)):
        kernel = rng.normal(0, (2 / wide) ** 0.5, (high, wide, 1, 1)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{n}"))
        nodes += [helper.make_node("Conv", [value, f"w{n}"], [f"c{n}"]), helper.make_node("Relu", [f"c{n}"], [f"r{n}"])]
        value = f"r{n}"
    nodes += [helper.make_node("GlobalAveragePool", [value], ["mean"])]
    nodes += [helper.make_node("Flatten", ["mean"], ["logits"])]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(nodes, "matrix", [image], [logits], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(directory / "model.onnx"))
    return _with_card(directory, "model.onnx", "products of matrices", SIDE, ("logits",), ("a", "b"))


def _with_card(
    directory: Path, file: str, architecture: str, side: int, outputs: tuple[str, ...], classes: tuple[str, ...]
) -> Path:
    card = ModelCard(
        name=directory.name, kind="classifier", architecture=architecture, file=file,
        sha256=sha256_of(directory / file), input=InputSpec("image", side, side, max_batch=MAX_BATCH), outputs=outputs,
        classes=classes, licence="none: random weights",
    )  # fmt: skip
    write_card(card, directory)
    return directory
