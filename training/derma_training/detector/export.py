"""From a trained detector to a model directory: one ONNX file with the decode in its graph, and its card."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from derma_common.errors import ModelError, ResourceError
from derma_common.inference.card import InputSpec, ModelCard, sha256_of, write_card
from derma_common.inference.onnx import run_file
from derma_training.detector.layers import Darknet
from derma_training.detector.networks import name_of
from derma_training.detector.yolo_head import DetectorGraph

PARITY = 1e-4  # the largest difference allowed between PyTorch and ONNX Runtime: score, and box over the input's side
OPSET = 17


def export(net: Darknet, directory: Path, card: ModelCard) -> ModelCard:
    """Write `directory/model.onnx`, then its card with the file's hash; returns the card.

    The card's input says the size and the batch: a fixed one of 1, or any up to `max_batch`. Raises ModelError when the
    size is not in whole cells of the network, or when ONNX Runtime and PyTorch disagree by more than PARITY;
    ResourceError when the disk does not take it.
    """
    spec = card.input
    cell = max(head.stride for head in net.heads)
    if spec.width % cell or spec.height % cell:
        raise ModelError(f"an input of {spec.width}x{spec.height} px does not fit: both sides are multiples of {cell}")
    graph = DetectorGraph(net).eval().to("cpu", memory_format=torch.contiguous_format)
    draft = directory / (card.file + ".part")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(graph, draft, spec)
        difference = parity(graph, draft, spec)
        if not difference <= PARITY:
            draft.unlink()
            raise ModelError(
                f"the ONNX file differs from the trained network by {difference:.2e} (allowed {PARITY:.0e}), "
                "so it is not kept"
            )
        draft.replace(directory / card.file)
        figures = {
            **card.figures,
            "onnx_parity_max_abs_difference": float(f"{difference:.2e}"),
            "anchors": [[list(pair) for pair in head.anchors] for head in net.heads],
        }
        card = replace(card, sha256=sha256_of(directory / card.file), figures=figures)
        write_card(card, directory)
    except OSError as error:
        raise ResourceError(f"{directory} cannot be written: {error.strerror}") from error
    return card


def _write(graph: DetectorGraph, path: Path, spec: InputSpec) -> None:
    names = (spec.name, "boxes", "scores")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's remarks on fixed sizes: they are meant
        torch.onnx.export(
            graph,
            (torch.zeros(1, 3, spec.height, spec.width),),
            str(path),
            input_names=[spec.name],
            output_names=list(names[1:]),
            dynamic_axes={name: {0: "batch"} for name in names} if spec.max_batch > 1 else None,
            opset_version=OPSET,
            dynamo=False,
        )


def parity(graph: DetectorGraph, onnx_file: Path, spec: InputSpec, seed: int = 0) -> float:
    """Return the largest difference between PyTorch and ONNX Runtime: scores, boxes over the longer side."""
    rng = np.random.default_rng(seed)
    worst = 0.0
    for count in (1, 1, min(3, spec.max_batch)):
        image = rng.random((count, 3, spec.height, spec.width), dtype=np.float32)
        found = run_file(onnx_file, {spec.name: image})
        with torch.no_grad():
            own_boxes, own_scores = graph(torch.from_numpy(image))
        apart = float(np.abs(found["boxes"] - own_boxes.numpy()).max()) / max(spec.width, spec.height)
        worst = max(worst, apart, float(np.abs(found["scores"] - own_scores.numpy()).max()))
    return worst


def draft_card(
    name: str,
    net: Darknet,
    width: int,
    height: int,
    classes: tuple[str, ...],
    licence: str,
    max_batch: int = 1,
) -> ModelCard:
    """Return the card of a detector before its file exists. Raises ModelError when `classes` are not the network's."""
    count = net.heads[0].classes
    if len(classes) != count:
        names = ", ".join(classes)
        raise ModelError(f"the network tells {count} classes apart, there are {len(classes)} names: {names}")
    return ModelCard(
        name=name,
        kind="detector",
        architecture=f"{name_of(net.config)}, {len(net.heads)} heads, decode in the graph",
        file="model.onnx",
        sha256="",
        input=InputSpec("image", width, height, max_batch=max_batch),
        outputs=("boxes", "scores"),
        classes=classes,
        licence=licence,
    )
