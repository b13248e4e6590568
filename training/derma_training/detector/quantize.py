"""From an fp32 detector to one of int8 arithmetic for CPUs: static quantisation, calibrated on pictures.

Convolutions and what lies between them become int8; the heads' last convolutions and the decode stay in float, because
a box is an exponential of what they say (Jacob et al. 2018, "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference", eq. 1: real = scale · (integer − zero point)).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from derma_common.errors import ConfigError, ModelError, ResourceError
from derma_common.inference.card import ModelCard, read_card, sha256_of, verified_file, write_card
from derma_common.inference.precision import CalibrationReader, leads_to_convolution, without_advice
from derma_common.preprocess import Image

if TYPE_CHECKING:
    from onnx import GraphProto

NOTE = (
    "int8 (QDQ) for CPUs, through ONNX Runtime: x86-64 with AVX2 or better, ARM64; weights have 7 bits, so that sums "
    "do not overflow on a CPU without VNNI. On a GPU, and to train on, use the fp32 model"
)
QUANTISED = ("Conv", "LeakyRelu", "MaxPool", "Concat", "Slice", "Resize")


def quantize(source: Path, images: Iterable[Image], out: Path) -> ModelCard:
    """Write the int8 build of the detector in directory `source` into directory `out`; returns its card.

    images: (H, W, 3) uint8 BGR; the largest values that they cause set the scales. Figures of the fp32 model are not
    taken over. Raises ModelError when `source` is no fp32 ONNX detector, ConfigError when `out` is `source`,
    ResourceError when the disk does not take it.
    """
    card = read_card(source)
    if card.kind != "detector" or card.runner != "onnx":
        raise ModelError(f"{source} is a {card.kind} for the runner {card.runner}; an ONNX detector is needed here")
    if out.resolve() == source.resolve():
        raise ConfigError(f"{out} holds the fp32 model: give another folder for the int8 one")
    file = verified_file(card, source)
    draft = out / (card.file + ".part")
    try:
        out.mkdir(parents=True, exist_ok=True)
        count = _quantize_file(file, draft, card, images)
        draft.replace(out / card.file)
        card = replace(
            card,
            name=out.resolve().name,
            architecture=f"{card.architecture}, int8",
            sha256=sha256_of(out / card.file),
            notes=(*card.notes, NOTE),
            figures={"quantised_from": card.id, "calibration_pictures": count},
        )
        write_card(card, out)
    except OSError as error:
        raise ResourceError(f"{out} cannot be written: {error.strerror}") from error
    return card


def _quantize_file(source: Path, target: Path, card: ModelCard, images: Iterable[Image]) -> int:
    """Quantise an ONNX file; returns how many pictures calibrated it."""
    import onnx
    from onnxruntime import quantization as ort_quantization

    graph = onnx.load(str(source)).graph
    if any(node.op_type == "QuantizeLinear" for node in graph.node):
        raise ModelError(f"{source} is an int8 model already; quantise the fp32 one it was made from")
    reader = CalibrationReader(card, images)
    with without_advice():
        ort_quantization.quantize_static(
            str(source),
            str(target),
            reader,
            quant_format=ort_quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=float_nodes(graph),
            per_channel=True,
            reduce_range=True,  # see NOTE; costs neither time nor agreement
            activation_type=ort_quantization.QuantType.QUInt8,
            weight_type=ort_quantization.QuantType.QInt8,
            calibrate_method=ort_quantization.CalibrationMethod.MinMax,
        )
    return reader.count


def float_nodes(graph: GraphProto) -> list[str]:
    """Return the names of the nodes that no convolution follows: the heads' last convolutions, and the decode."""
    return [name for name, leads in leads_to_convolution(graph).items() if not leads]
