"""The weights of an exported detector, back into a network: to train on from a model without its checkpoint."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from derma_common.errors import ModelError
from derma_common.inference.card import read_card, verified_file
from derma_training.detector.layers import ConvUnit, Darknet
from derma_training.detector.networks import NETWORKS, network


def network_of(directory: Path) -> Darknet:
    """Return the network that a model directory was exported from, in eval mode. Raises ModelError."""
    card = read_card(directory)
    file, anchors = verified_file(card, directory), card.figures.get("anchors")
    if anchors is None:
        raise ModelError(f"{directory}: its card has no anchors, so it is none that derma exported from a network")
    for name in NETWORKS:
        if len(network(name).heads) == len(anchors):
            net = Darknet(network(name, len(card.classes), card.input.width, card.input.height, anchors))
            load_onnx(net, file)
            net.eval()
            return net
    raise ModelError(f"{directory} has {len(anchors)} heads, as none of {', '.join(NETWORKS)} has")


def load_onnx(net: Darknet, path: Path) -> None:
    """Fill a network from an ONNX file that was exported from the same architecture, classes included.

    The exporter folds batch normalisation into the convolutions; here it starts as the identity with the folded
    bias, so the network computes the same. Raises ModelError for another network, and for an int8 file.
    """
    stored = _convolutions(path)
    matched = []
    for unit in net.conv_units():
        same = stored[tuple(unit.conv.weight.shape)]
        if not same:
            raise ModelError(f"{path} has no convolution of {tuple(unit.conv.weight.shape)}: it is of another network")
        matched.append((unit, *same.pop(0)))
    if any(stored.values()):
        raise ModelError(f"{path} has more convolutions than this network: it is of another network")
    for unit, weight, bias in matched:
        _fill(unit, weight, bias)


def _convolutions(path: Path) -> dict[tuple[int, ...], list[tuple[Tensor, Tensor]]]:
    """Return weights and biases in the graph's order, by the weights' shape.

    By shape, because an exporter may write the branches of a network in any order; within a branch it keeps theirs.
    """
    import onnx

    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf's and onnx's exceptions share no base class
        raise ModelError(f"{path} cannot be read as ONNX: {str(error)[:200]}") from error
    numbers = {tensor.name: tensor for tensor in graph.initializer}
    # the exporter keeps equal numbers once and hands them on through Identity nodes
    same = [(node.output[0], node.input[0]) for node in graph.node if node.op_type == "Identity"]
    numbers |= {name: numbers[source] for name, source in same if source in numbers}
    found: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for node in graph.node:
        if node.op_type == "Conv":
            if len(node.input) != 3 or not set(node.input[1:]) <= set(numbers):
                raise ModelError(f"{path} has no plain convolutions; an int8 model cannot be trained on, take its fp32")
            weight, bias = (torch.from_numpy(onnx.numpy_helper.to_array(numbers[n]).copy()) for n in node.input[1:])
            found[tuple(weight.shape)].append((weight, bias))
    return found


@torch.no_grad()  # type: ignore[untyped-decorator]
def _fill(unit: ConvUnit, weight: Tensor, bias: Tensor) -> None:
    unit.conv.weight.copy_(weight)
    if unit.conv.bias is not None:
        unit.conv.bias.copy_(bias)
        return
    unit.norm.weight.fill_(1.0)
    unit.norm.bias.copy_(bias)
    unit.norm.running_mean.zero_()
    unit.norm.running_var.fill_(1.0 - unit.norm.eps)
