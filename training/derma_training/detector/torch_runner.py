"""A network in training as a runner, so that it is measured through the service's own preprocessing and decoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from derma_common.inference.runner import Array, Runner
from derma_training.detector.layers import Darknet
from derma_training.detector.yolo_head import DetectorGraph


class TorchRunner(Runner):
    """Runs a network in PyTorch."""

    name = "torch"

    def __init__(self, net: Darknet, device: torch.device) -> None:
        self._graph, self._device = DetectorGraph(net).eval(), device

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Map the one input (N, 3, H, W) in [0, 1] to boxes (N, A, 4) input px and scores (N, A, C)."""
        (image,) = inputs.values()
        boxes, scores = self._graph(torch.from_numpy(image).to(self._device))
        return {"boxes": boxes.cpu().numpy(), "scores": scores.cpu().numpy()}

    def close(self) -> None:
        """Nothing is held open."""
