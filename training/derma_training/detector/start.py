"""Start a run from weights that exist: Darknet's files, or a model that derma exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from derma_common.errors import ModelError
from derma_common.inference.card import CARD_FILE, read_card
from derma_training.detector.augment import augmented
from derma_training.detector.cfg import Anchors
from derma_training.detector.data import Feed, collate
from derma_training.detector.layers import Darknet
from derma_training.detector.start_weights import start_from
from derma_training.detector.train import Run, TrainSettings

STATISTICS_BATCHES = 8  # of the finished size


def anchors_beside(weights: Path) -> Anchors | None:
    """Return the anchors in the card beside an exported model; None for other files and for cards without any."""
    if weights.suffix != ".onnx" or not (weights.parent / CARD_FILE).exists():
        return None
    anchors = read_card(weights.parent).figures.get("anchors")
    try:
        return [[(float(w), float(h)) for w, h in head] for head in anchors] if anchors else None
    except (TypeError, ValueError) as error:
        raise ModelError(f"{weights.parent / CARD_FILE}: its anchors are no lists of pairs of px") from error


def begin_from(run: Run, weights: Path, feed: Feed, settings: TrainSettings) -> str:
    """Fill the run's networks from `weights`; returns one sentence on what was taken. Raises ModelError."""
    said = start_from(run.net, weights)
    if weights.suffix == ".onnx":
        batches = []
        for n in range(STATISTICS_BATCHES):
            rngs = [np.random.default_rng((settings.seed, n, k)) for k in range(settings.batch)]
            batches.append(collate([augmented(rng, feed.draw, settings.size) for rng in rngs])[0].to(run.device))
        measure_statistics(run.net, batches)
    run.averaged.load_state_dict(run.net.state_dict())
    return said


@torch.no_grad()  # type: ignore[untyped-decorator]
def measure_statistics(net: Darknet, batches: list[Tensor]) -> None:
    """Give batch normalisation that was folded away its statistics back: what `batches` show, the outputs kept.

    A folded network's normalisation is the identity. Trained on like that, its first batches would be normalised by
    numbers it has never seen; so mean and variance are measured and weight and bias set to undo them.
    """
    units = [unit for unit in net.conv_units() if isinstance(unit.norm, nn.BatchNorm2d)]
    sums: dict[nn.Module, list[Tensor]] = {unit.conv: [] for unit in units}

    def watch(module: nn.Module, _: object, output: Tensor) -> None:
        whole = output.double()
        sums[module].append(torch.stack([whole.mean((0, 2, 3)), whole.pow(2).mean((0, 2, 3))]))

    hooks = [unit.conv.register_forward_hook(watch) for unit in units]
    net.eval()
    for images in batches:
        net(images)
    for hook in hooks:
        hook.remove()
    for unit in units:
        mean, square = torch.stack(sums[unit.conv]).mean(dim=0)
        variance = (square - mean**2).clamp(min=1e-8)
        old = (unit.norm.running_var + unit.norm.eps).sqrt()
        gain = (unit.norm.weight / old).double()
        bias = unit.norm.bias - unit.norm.running_mean * gain
        unit.norm.weight.copy_(gain * (variance + unit.norm.eps).sqrt())
        unit.norm.bias.copy_(bias + gain * mean)
        unit.norm.running_mean.copy_(mean)
        unit.norm.running_var.copy_(variance)
