"""Start an EfficientNet-B0 from a MobileNetV2: the two share one skeleton of inverted residuals.

The source is an .npz of layers in order, `NN.weight` and `NN.bias` with the batch norm folded in
(MobileNetV2 1.0, input RGB / 127.5 − 1). Expanding, depthwise and head kernels are copied into the
leading channels (3×3 into the middle of 5×5). Each block's projection is then fitted by least
squares, on a batch of pictures, so that the block gives what the source's block gives: this absorbs
SiLU against ReLU6, the wider kernels, and the source's third or fourth block where ours has fewer.
SiLU(κx)/κ stands in for ReLU, closer the larger κ; batch norms carry κ and the source's biases.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from derma_training.classifier.mobilenet_v2 import STAGES, Layer, read_folded

SHARPNESS = 4.0  # κ
OPEN_GATE = 3.0  # bias before the squeeze-excite sigmoid: the gates start at 0.95
FIT_POSITIONS = 20_000  # of a batch's feature vectors are enough for a fit
RIDGE = 1e-3  # of the mean variance


@dataclass(frozen=True)
class SourceBlock:
    """One block of the source: its layers but the projection, and its output (N, C, H, W) for the batch."""

    layers: tuple[Layer, ...]
    output: Any


def warm_start(model: Any, source: Path, images: Any) -> None:
    """Give a timm efficientnet_b0 the features of the network in `source`; images: (N, 3, H, W) float32.

    Raises ModelError when the file is not such a network.
    """
    layers = read_folded(source)
    model.eval()
    with torch.no_grad():
        stages = source_stages(layers, images)
        x = _copied(model.conv_stem, model.bn1, layers[0], images, scale_in=1.0)
        for stage, blocks in zip(model.blocks, stages, strict=True):
            for b, block in enumerate(stage):
                known = blocks[b] if b < len(blocks) else None
                wanted = blocks[-1] if b == min(len(stage), len(blocks)) - 1 else known
                x = _fit_block(block, x, known, wanted)
        _copied(model.conv_head, model.bn2, layers[-1], x, scale_in=1.0, scale_out=1.0)
        model.classifier.weight.zero_()
        model.classifier.bias.zero_()


def source_stages(layers: list[Layer], images: Any) -> list[list[SourceBlock]]:
    """Run the source on images and return its blocks by stage."""
    x = _conv(images, layers[0], 2).clamp(0, 6)
    stages, first = [], 1
    for expansion, _, depth, stride in STAGES:
        blocks = []
        for b in range(depth):
            *inner, project = layers[first : first + (3 if expansion > 1 else 2)]
            first += len(inner) + 1
            y = x
            for layer in inner:
                y = _conv(y, layer, stride if b == 0 and layer is inner[-1] else 1).clamp(0, 6)
            y = _conv(y, project, 1)
            x = x + y if b > 0 else y
            blocks.append(SourceBlock(tuple(inner), x))
        stages.append(blocks)
    return stages


def _conv(x: Any, layer: Layer, stride: int) -> Any:
    kernel, bias = layer
    groups = x.shape[1] if kernel.shape[1] == 1 and x.shape[1] > 1 else 1
    return torch.nn.functional.conv2d(x, kernel, bias, stride, padding=kernel.shape[2] // 2, groups=groups)


def _fit_block(block: Any, x: Any, known: SourceBlock | None, wanted: SourceBlock | None) -> Any:
    """Set one block from the source's and return its output; a block that the source lacks starts as the identity."""
    expands = hasattr(block, "conv_pwl")
    convs = [block.conv_pw, block.conv_dw] if expands else [block.conv_dw]
    norms = [block.bn1, block.bn2] if expands else [block.bn1]
    project, last_norm = (block.conv_pwl, block.bn3) if expands else (block.conv_pw, block.bn2)
    y = x
    for i, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
        layer = known.layers[i] if known else None
        y = _copied(conv, norm, layer, y, scale_in=1.0 if expands and i == 0 else SHARPNESS)
    block.se.conv_expand.weight.zero_()
    block.se.conv_expand.bias.fill_(OPEN_GATE)
    y = block.se(y)
    skip = x if block.conv_dw.stride == (1, 1) and project.out_channels == x.shape[1] else None
    bias = torch.zeros(0)
    if wanted is not None:
        n = wanted.output.shape[1]
        target = wanted.output if skip is None else wanted.output - skip[:, :n]
        weight, bias = _least_squares(y, target)
        project.weight[:n, :, 0, 0] = weight
    out = project(y)
    _set_norm(last_norm, out, bias, 1.0, 1.0, rest=1.0 if skip is None else 0.0)
    out = last_norm(out)
    return out if skip is None else out + skip


def _copied(conv: Any, norm: Any, layer: Layer | None, x: Any, scale_in: float, scale_out: float = SHARPNESS) -> Any:
    """Copy a layer into conv and its scale into norm; return their activated output for x."""
    if layer is not None:
        kernel = layer[0]
        outputs, inputs, height, width = kernel.shape
        top, left = (conv.weight.shape[2] - height) // 2, (conv.weight.shape[3] - width) // 2
        conv.weight[:outputs] = 0.0
        conv.weight[:outputs, :inputs, top : top + height, left : left + width] = kernel
    out = conv(x)
    bias = layer[1] if layer is not None else torch.zeros(0)
    _set_norm(norm, out, bias, scale_in, scale_out, rest=1.0)
    return norm(out)


def _set_norm(norm: Any, x: Any, bias: Any, scale_in: float, scale_out: float, rest: float) -> None:
    """Set a batch norm so that for x it adds `bias` in its leading channels and standardises the others to `rest`."""
    n = len(bias)
    mean, variance = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), unbiased=False)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.fill_(rest)
    norm.bias.zero_()
    norm.weight[:n] = (torch.sqrt(variance + norm.eps) * scale_out / scale_in)[:n]
    norm.bias[:n] = (mean[:n] / scale_in + bias) * scale_out


def _least_squares(x: Any, target: Any) -> tuple[Any, Any]:
    """Return weight (O, I) and bias (O,) of the ridge regression of target (N, O, H, W) on x (N, I, H, W)."""
    rows, wanted = x.permute(0, 2, 3, 1).flatten(0, 2), target.permute(0, 2, 3, 1).flatten(0, 2)
    step = max(1, len(rows) // FIT_POSITIONS)
    rows, wanted = rows[::step].double(), wanted[::step].double()
    mean_x, mean_y = rows.mean(0), wanted.mean(0)
    rows, wanted = rows - mean_x, wanted - mean_y
    gram = rows.T @ rows / len(rows)
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weight = torch.linalg.solve(gram, rows.T @ wanted / len(rows)).T
    return weight.float(), (mean_y - weight @ mean_x).float()
