"""The network as TensorRT is to build it: in fp32, in fp16, or with Q/DQ nodes that say what is int8.

Since TensorRT 10 (strongly typed networks) precision is a property of the file, so the same file serves every version,
and ONNX Runtime can run it too: that is how a conversion is judged before there is an engine. This needs the package
`onnx`; serving an engine does not.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derma_common.errors import ModelError, ResourceError
from derma_common.inference.card import ModelCard
from derma_common.inference.half import to_half
from derma_common.preprocess import Image, letterbox, resize, to_tensor

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

PRECISIONS = ("int8", "fp16", "fp32")  # the next more precise one follows
HALF_SCALES_OPSET = 19  # of ONNX: the first in which what is quantised may be fp16


def converted(network: Path, card: ModelCard, precision: str, images: Iterable[Image] = ()) -> bytes:
    """Return the ONNX network in a precision: "fp32" (the file as it is), "fp16", or "int8" with the rest in fp16.

    int8 is calibrated on images: (H, W, 3) uint8 BGR; whole pictures for a detector, crops for a classifier. Raises
    ModelError when the network cannot be converted or there is no picture to calibrate on, ResourceError without the
    package onnx.
    """
    if precision == "fp32":
        return network.read_bytes()
    try:
        import onnx
    except ImportError:
        raise ResourceError("a TensorRT engine of fp16 or int8 needs the package onnx: pip install onnx") from None
    model = onnx.load(str(network))
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ModelError(f"{card.name} is an int8 model for CPUs; on a GPU use the fp32 one it was made from")
    if precision == "int8":
        model = _with_scales(model, card, images)
    # a box is an exponential of what the last convolutions say, in px; classes need no more than fp16
    in_float = decode_nodes(model.graph) if card.kind == "detector" else ()
    data: bytes = to_half(model, in_float).SerializeToString()
    return data


def decode_nodes(graph: GraphProto) -> list[str]:
    """Return the names of the nodes behind the last convolutions, through which nothing leads into another one."""
    leads = leads_to_convolution(graph)
    return [node.name for node in graph.node if node.op_type != "Conv" and not leads[node.name]]


def leads_to_convolution(graph: GraphProto) -> dict[str, bool]:
    """Say of each node of a network, by name, whether what it gives reaches a convolution."""
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    leads: dict[str, bool] = {}
    for node in reversed(graph.node):  # nodes stand in the order of their execution
        after = [user for name in node.output for user in users.get(name, [])]
        leads[node.name] = any(user.op_type == "Conv" or leads[user.name] for user in after)
    return leads


def _with_scales(model: ModelProto, card: ModelCard, images: Iterable[Image]) -> ModelProto:
    """Add Q/DQ pairs as TensorRT takes them: symmetric, int8 activations, weights by channel, biases in float."""
    import onnx
    from onnx import version_converter
    from onnxruntime import quantization

    pictures = list(images)
    if not pictures:
        raise ModelError(f"{card.name}: int8 must be calibrated on pictures, and there is none")
    leads = leads_to_convolution(model.graph)
    last = [node.name for node in model.graph.node if node.op_type == "Conv" and not leads[node.name]]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        with without_advice():
            quantization.quantize_static(
                model,
                str(target),
                CalibrationReader(card, pictures),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=last,  # what is decoded from them is too sensitive for 256 steps
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                    # what only a float node reads stays float
                    "OpTypesToExcludeOutputQuantization": ["Conv"],
                },
            )
        scaled = onnx.load(str(target))
    older = any(opset.domain == "" and opset.version < HALF_SCALES_OPSET for opset in scaled.opset_import)
    return version_converter.convert_version(scaled, HALF_SCALES_OPSET) if older else scaled


class CalibrationReader:
    """Hands pictures to ONNX Runtime's calibration as the pipeline hands them to the network, one at a time."""

    def __init__(self, card: ModelCard, images: Iterable[Image]) -> None:
        self.count = 0
        self._inputs = self._prepared(card, images)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next input by its name, None after the last."""
        return next(self._inputs, None)

    def _prepared(self, card: ModelCard, images: Iterable[Image]) -> Iterator[dict[str, Any]]:
        spec = card.input
        for image in images:
            if card.kind == "detector":
                image, _ = letterbox(image, spec.width, spec.height)
            else:
                image = resize(image, spec.width)
            self.count += 1
            yield {spec.name: to_tensor([image], spec.mean, spec.std)}


@contextmanager
def without_advice() -> Iterator[None]:
    """Keep ONNX Runtime's advice to fold and infer shapes first out of the log: the export has done it."""
    logging.getLogger().addFilter(_not_advice)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(_not_advice)


def _not_advice(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()
