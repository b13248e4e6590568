"""From an fp32 ONNX network to one that calculates in fp16, inputs and outputs left in float32.

TensorRT of today takes precision from the file: what is to be half precision is written as half precision. ONNX
Runtime's own converter writes such files too, but names a cast twice where one tensor has several float32 readers,
which is no ONNX any more.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from derma_common.errors import ModelError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

# inputs that stay float32 whatever the operator calculates in: roi and scales
_FLOAT_INPUTS = {"Resize": (1, 2)}


def to_half(model: ModelProto, in_float: Collection[str]) -> ModelProto:
    """Return `model` with all float32 work in fp16 but that of the nodes named in `in_float`.

    Raises ModelError when a weight is too large for fp16 (65504).
    """
    from onnx import ModelProto, shape_inference

    half = ModelProto()
    half.CopyFrom(shape_inference.infer_shapes(model))
    _Converter(half.graph, in_float).convert()
    return half


class _Converter:
    def __init__(self, graph: GraphProto, in_float: Collection[str]) -> None:
        from onnx import TensorProto

        self._graph, self._in_float = graph, in_float
        self._float, self._half = TensorProto.FLOAT, TensorProto.FLOAT16
        _constants_to_initializers(graph)
        typed = (*graph.input, *graph.output, *graph.value_info)
        self._float_names = {v.name for v in typed if v.type.tensor_type.elem_type == self._float}
        self._weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == self._float}
        self._half_names: set[str] = set()  # of tensors that have become half under their own name
        self._made: set[str] = set()  # casts and half weights, by the name that they were given
        self._nodes: list[NodeProto] = []

    def convert(self) -> None:
        for node in self._graph.node:
            if node.name in self._in_float:
                self._renamed(node, lambda i, name: self._as_float(name))
                self._nodes.append(node)
            else:
                kept = _FLOAT_INPUTS.get(node.op_type, ())
                self._renamed(node, lambda i, name, kept=kept: name if i in kept else self._as_half(name))
                self._calculate_half(node)
        del self._graph.node[:], self._graph.value_info[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        kept_weights = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept_weights)

    def _renamed(self, node: NodeProto, rename: Any) -> None:
        for i, name in enumerate(node.input):
            node.input[i] = rename(i, name)

    def _as_float(self, name: str) -> str:
        return self._cast(name, f"{name}/float", self._float) if name in self._half_names else name

    def _as_half(self, name: str) -> str:
        new = f"{name}/half"
        if name in self._weights:
            if new not in self._made:
                self._made.add(new)
                self._graph.initializer.append(_half_weight(self._weights[name], new))
            return new
        if name in self._half_names or name not in self._float_names:
            return name
        return self._cast(name, new, self._half)

    def _cast(self, name: str, new: str, to: int) -> str:
        from onnx import helper

        if new not in self._made:
            self._made.add(new)
            self._nodes.append(helper.make_node("Cast", [name], [new], name=f"cast {new}", to=to))
        return new

    def _calculate_half(self, node: NodeProto) -> None:
        """Add a node whose float32 inputs are half by now; what the graph gives out is cast back."""
        from onnx import helper

        if node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.name == "to" and attribute.i == self._float:
                    attribute.i = self._half
        self._nodes.append(node)
        outputs = {value.name for value in self._graph.output}
        for i, name in enumerate(node.output):
            if name not in self._float_names:
                continue
            if name in outputs:
                node.output[i] = f"{name}/half"
                self._made.add(node.output[i])
                self._nodes.append(
                    helper.make_node("Cast", [node.output[i]], [name], name=f"cast {name}", to=self._float)
                )
            else:
                self._half_names.add(name)


def _constants_to_initializers(graph: GraphProto) -> None:
    """Turn Constant nodes that hold a tensor into initializers, so that there is one kind of weight."""
    kept = []
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
        if value is None:
            kept.append(node)
            continue
        value.name = node.output[0]
        graph.initializer.append(value)
    del graph.node[:]
    graph.node.extend(kept)


def _half_weight(tensor: Any, name: str) -> Any:
    from onnx import numpy_helper

    with np.errstate(over="ignore"):
        values = numpy_helper.to_array(tensor).astype(np.float16)
    if not np.isfinite(values).all():
        raise ModelError(f"the weights {tensor.name} are too large for fp16; use fp32")
    return numpy_helper.from_array(values, name)
