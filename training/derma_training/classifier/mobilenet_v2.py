"""MobileNetV2 without batch norm, as it comes out of a folded file, with timm's interface.

Sandler et al. 2018 (arXiv 1801.04381), table 2, width 1.0. Fine-tuned as it is: the convolutions carry
their biases and nothing normalises, so small batches train like large ones.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from derma_common.errors import ModelError

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
FEATURES = 1280

Layer = tuple[Any, Any]  # kernel (O, I, h, w) and bias (O,) float32


class Convolution(nn.Conv2d):  # type: ignore[misc]  # torch is untyped here
    """A convolution with TensorFlow's "same" padding (an odd pixel goes right and below), then ReLU6 if `active`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, active: bool = True
    ):
        super().__init__(inputs, outputs, kernel, stride, groups=groups)
        self.active = active

    def forward(self, x: Any) -> Any:
        """Map (N, I, H, W) to (N, O, ⌈H / stride⌉, ⌈W / stride⌉)."""
        top, bottom = self._padding(x.shape[2])
        left, right = self._padding(x.shape[3])
        if top == bottom == left == right:
            y = functional.conv2d(x, self.weight, self.bias, self.stride, top, groups=self.groups)
        else:
            y = super().forward(functional.pad(x, (left, right, top, bottom)))
        return functional.relu6(y) if self.active else y

    def _padding(self, length: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
        return total // 2, total - total // 2


class InvertedResidual(nn.Module):  # type: ignore[misc]
    """Expand, filter each channel, project; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.layers = nn.Sequential(
            *([Convolution(inputs, inner, 1)] if expansion > 1 else []),
            Convolution(inner, inner, 3, stride=stride, groups=inner),
            Convolution(inner, outputs, 1, active=False),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Any) -> Any:
        """Map (N, I, H, W) to (N, O, ⌈H / stride⌉, ⌈W / stride⌉)."""
        y = self.layers(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):  # type: ignore[misc]
    """The whole network; its input is RGB / 127.5 − 1, the mean and standard deviation ½ of derma's classifiers."""

    def __init__(self, classes: int, dropout: float = 0.3) -> None:
        super().__init__()
        layers: list[nn.Module] = [Convolution(3, 32, 3, stride=2)]
        width = 32
        for expansion, outputs, depth, stride in STAGES:
            for i in range(depth):
                layers.append(InvertedResidual(width, outputs, expansion, stride if i == 0 else 1))
                width = outputs
        self.layers = nn.Sequential(*layers, Convolution(width, FEATURES, 1))
        self.num_features = FEATURES
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(FEATURES, classes)

    def get_classifier(self) -> nn.Linear:
        """Return the last layer."""
        return self.classifier

    def forward_features(self, images: Any) -> Any:
        """Return the feature maps (N, 1280, H / 32, W / 32) of images (N, 3, H, W)."""
        return self.layers(images)

    def forward_head(self, x: Any, pre_logits: bool = False) -> Any:
        """Return the logits (N, C) of feature maps, or their mean (N, 1280) if `pre_logits`."""
        features = self.dropout(x.mean(dim=(2, 3)))
        return features if pre_logits else self.classifier(features)

    def forward(self, images: Any) -> Any:
        """Return the logits (N, C) of images (N, 3, H, W)."""
        return self.forward_head(self.forward_features(images))


def read_folded(source: Path) -> list[Layer]:
    """Return the 52 convolutions of an .npz of `NN.weight` and `NN.bias` in order of execution. Raises ModelError."""
    try:
        with np.load(source, allow_pickle=False) as arrays:
            return [
                (
                    torch.from_numpy(arrays[f"{i:02d}.weight"].astype(np.float32)),
                    torch.from_numpy(arrays[f"{i:02d}.bias"].astype(np.float32)),
                )
                for i in range(52)
            ]
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(f"{source} is no folded MobileNetV2: {error}") from error


def load_folded(model: MobileNetV2, source: Path) -> None:
    """Give the model the convolutions in `source`; its last layer stays. Raises ModelError."""
    convolutions = [module for module in model.modules() if isinstance(module, Convolution)]
    for i, (convolution, (kernel, bias)) in enumerate(zip(convolutions, read_folded(source), strict=True)):
        if kernel.shape != convolution.weight.shape or bias.shape != convolution.weight.shape[:1]:
            wanted, found = tuple(convolution.weight.shape), tuple(kernel.shape)
            raise ModelError(f"{source} is no folded MobileNetV2: layer {i} has the kernel {found}, not {wanted}")
        with torch.no_grad():
            convolution.weight.copy_(kernel)
            convolution.bias.copy_(bias)
