"""From a trained detector to a model directory: one ONNX file with the decode in its graph, and its card."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from derma_common.errors import ModelError
from derma_common.inference.card import InputSpec, ModelCard, sha256_of, write_card
from derma_common.inference.onnx import run_file
from derma_training.detector.yolo_head import Anchors, DetectorGraph
from derma_training.detector.yolov4_tiny import STRIDES, YoloV4Tiny

PARITY = (
    1e-4  # the largest difference allowed between PyTorch and ONNX Runtime: score, and box in units of the input side
)
OPSET = 17


def export(net: YoloV4Tiny, anchors: Anchors, size: int, directory: Path, card: ModelCard) -> ModelCard:
    """Write `directory/model.onnx`, then its card with the file's hash; returns the card.

    Raises ModelError when ONNX Runtime and PyTorch disagree by more than PARITY.
    """
    directory.mkdir(parents=True, exist_ok=True)
    graph = DetectorGraph(net, anchors, STRIDES, net.classes).eval().to(memory_format=torch.contiguous_format)
    draft = directory / "model.onnx.part"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's remarks on fixed shapes: they are meant
        torch.onnx.export(
            graph,
            (torch.zeros(1, 3, size, size),),
            str(draft),
            input_names=["image"],
            output_names=["boxes", "scores"],
            opset_version=OPSET,
            dynamo=False,
        )
    difference = parity(graph, draft, size)
    if not difference <= PARITY:
        raise ModelError(f"{draft} differs from the trained network by {difference:.2e} (allowed {PARITY:.0e})")
    draft.replace(directory / card.file)
    figures = {**card.figures, "onnx_parity_max_abs_difference": float(f"{difference:.2e}")}
    card = replace(card, sha256=sha256_of(directory / card.file), figures=figures)
    write_card(card, directory)
    return card


def parity(graph: DetectorGraph, onnx_file: Path, size: int, seed: int = 0) -> float:
    """Return the largest difference between PyTorch and ONNX Runtime: scores, and boxes over the input's side."""
    rng = np.random.default_rng(seed)
    worst = 0.0
    for _ in range(3):
        image = rng.random((1, 3, size, size), dtype=np.float32)
        found = run_file(onnx_file, {"image": image})
        with torch.no_grad():
            own_boxes, own_scores = graph(torch.from_numpy(image))
        worst = max(worst, float(np.abs(found["boxes"] - own_boxes.numpy()).max()) / size)
        worst = max(worst, float(np.abs(found["scores"] - own_scores.numpy()).max()))
    return worst


def draft_card(name: str, size: int, classes: tuple[str, ...], licence: str) -> ModelCard:
    """Return the card of a detector before its file exists."""
    return ModelCard(
        name=name,
        kind="detector",
        architecture="YOLOv4-tiny (CSPDarknet53-tiny, 2 heads), decode in the graph",
        file="model.onnx",
        sha256="",
        input=InputSpec("image", size, size),
        outputs=("boxes", "scores"),
        classes=classes,
        licence=licence,
    )
