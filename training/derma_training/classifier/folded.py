"""Networks without batch norm: fold a timm EfficientNet's norms away, and take up an exported model again.

An exported file has its batch norms folded into the convolutions before them. A network trained on
from there keeps that form: the same function, and less work for a step on a CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper
from timm.layers import BatchNormAct2d
from torch import nn

from derma_common.errors import ModelError

Layer = tuple[torch.Tensor, torch.Tensor]  # weight and bias


def fold_norms(model: Any) -> None:
    """Replace each batch norm of a timm EfficientNet by a scale and bias of the convolution before it, in place.

    The function stays that of the evaluation state, in which the norms use their running figures.
    Raises ModelError when a norm does not follow a convolution.
    """
    for parent in list(model.modules()):
        before = None
        for name, child in list(parent.named_children()):
            if isinstance(child, BatchNormAct2d):
                if before is None:
                    raise ModelError(f"the batch norm {name} of a {type(parent).__name__} follows no convolution")
                _fold(before, child)
                setattr(parent, name, child.act)
            before = child if isinstance(child, nn.Conv2d) else None


def _fold(convolution: nn.Conv2d, norm: Any) -> None:
    with torch.no_grad():
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        bias = norm.bias - norm.running_mean * scale
        if convolution.bias is not None:
            bias = bias + convolution.bias * scale
        convolution.weight.mul_(scale[:, None, None, None])
    convolution.bias = nn.Parameter(bias)


def load_exported(model: Any, source: Path) -> None:
    """Fold the norms of a timm EfficientNet and give it the weights of an ONNX file that derma exported from one.

    A last layer for another number of classes stays untouched. Raises ModelError when the file is of another network.
    """
    fold_norms(model)
    found = _exported_layers(source)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    by_name = {name: layer for name in layers for path, layer in found.items() if path.endswith(_scope(name))}
    if len(found) != len(layers) or len(by_name) != len(layers):
        raise ModelError(f"{source} is no export of this architecture: its layers have other names")
    for name, layer in layers.items():
        weight, bias = by_name[name]
        if weight.shape == layer.weight.shape:
            with torch.no_grad():
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
        elif layer is not model.get_classifier():
            wanted = tuple(layer.weight.shape)
            raise ModelError(f"{source} is of another network: its layer {name} is {tuple(weight.shape)}, not {wanted}")


def _scope(name: str) -> str:
    """Return the path by which PyTorch's exporter names the nodes of a module: a.0.b -> /a/a.0/b."""
    steps: list[str] = []
    for part in name.split("."):
        steps.append(f"{steps[-1]}.{part}" if part.isdecimal() else part)
    return "".join(f"/{step}" for step in steps)


def _exported_layers(source: Path) -> dict[str, Layer]:
    """Return path -> weight and bias of every convolution and linear layer of an ONNX file. Raises ModelError."""
    try:
        graph = onnx.load(source).graph
    except (OSError, DecodeError) as error:
        raise ModelError(f"{source} cannot be read as an ONNX file: {error}") from error
    values = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:  # the exporter keeps one of several equal tensors
        if node.op_type == "Identity" and node.input[0] in values:
            values[node.output[0]] = values[node.input[0]]
    layers = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm") and len(node.input) == 3 and set(node.input[1:]) <= set(values):
            weight, bias = (torch.from_numpy(numpy_helper.to_array(values[name]).copy()) for name in node.input[1:])
            layers[node.name.rpartition("/")[0]] = (weight, bias)
    return layers
