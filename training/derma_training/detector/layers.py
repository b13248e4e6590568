"""A Darknet network as a torch module, built from its typed layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

from derma_training.detector.cfg import Config, Convolutional, MaxPool, Route, Shortcut, Upsample, Yolo

BN_EPS = 1e-5  # Darknet's; OpenCV's reader takes 1e-6
BN_MOMENTUM = 0.03  # batches on small machines are small, so the statistics are averaged over many
PRIOR = 0.01  # the share of places at which a fresh network expects an object


class Mish(nn.Module):  # type: ignore[misc]
    """x · tanh(softplus(x)) (Misra 2019, eq. 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply to a tensor of any shape.

        With s = σ(−x), tanh(softplus(x)) = (1 − s²) / (1 + s²): the same number for one exponential instead of three,
        twice as fast in ONNX Runtime. Training keeps torch's fused kernel, which stores one tensor and not five.
        """
        if not torch.onnx.is_in_onnx_export():
            return fn.mish(x)
        squared = torch.sigmoid(-x).square()
        return x * (1 - squared) / (1 + squared)


class ConvUnit(nn.Module):  # type: ignore[misc]
    """Darknet's convolutional layer: convolution, batch normalisation unless it is a head's, activation."""

    def __init__(self, layer: Convolutional, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels,
            layer.filters,
            layer.size,
            layer.stride,
            layer.padding,
            groups=layer.groups,
            bias=not layer.batch_normalize,
        )
        self.norm = nn.BatchNorm2d(layer.filters, BN_EPS, BN_MOMENTUM) if layer.batch_normalize else nn.Identity()
        self.activation = _activation(layer.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, filters, H', W')."""
        return self.activation(self.norm(self.conv(x)))


def _activation(name: str) -> nn.Module:
    if name == "mish":
        return Mish()
    return nn.LeakyReLU(0.1, inplace=True) if name == "leaky" else nn.Identity()


def _max_pool(layer: MaxPool) -> nn.Module:
    before = (layer.size - 1) // 2
    after = layer.size - 1 - before
    if before == after:
        return nn.MaxPool2d(layer.size, layer.stride, before)
    if layer.size == layer.stride == 2:  # its padding is beyond the last window of an even side
        return nn.MaxPool2d(2, 2, ceil_mode=True)
    padding = nn.ConstantPad2d((before, after, before, after), float("-inf"))
    return nn.Sequential(padding, nn.MaxPool2d(layer.size, layer.stride))


class Join(nn.Module):  # type: ignore[misc]
    """Outputs of earlier layers joined along their channels, of each only part `group_id` of `groups`."""

    def __init__(self, layer: Route, channels: list[int]) -> None:
        super().__init__()
        widths = [count // layer.groups for count in channels]
        self._parts = [(index, layer.group_id * n, n) for index, n in zip(layer.layers, widths, strict=True)]
        self._whole = layer.groups == 1

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """Join outputs, each (N, C, H, W); the channels' numbers are fixed, so that a traced graph holds constants."""
        parts = [outputs[i] if self._whole else outputs[i].narrow(1, start, n) for i, start, n in self._parts]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


class Darknet(nn.Module):  # type: ignore[misc]
    """The network of a `Config`, freshly initialised. `heads` says what its outputs mean, in their order."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, self.heads = config, config.heads
        self.layers = nn.ModuleList()
        for index, layer in enumerate(config.layers):
            match layer:
                case Convolutional():
                    self.layers.append(ConvUnit(layer, config.input_of(index)[0]))
                case MaxPool():
                    self.layers.append(_max_pool(layer))
                case Upsample():
                    self.layers.append(nn.Upsample(scale_factor=layer.stride, mode="nearest"))
                case Route():
                    self.layers.append(Join(layer, [config.shapes[i][0] for i in layer.layers]))
                case Shortcut() | Yolo():
                    self.layers.append(nn.Identity())  # so that a layer's number is that of the cfg
        _initialise(self)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map image (N, 3, H, W) RGB in [0, 1] to the raw heads, each (N, A·(5+C), H/stride, W/stride)."""
        outputs: list[Tensor] = []
        heads: list[Tensor] = []
        x = image
        for layer, module in zip(self.config.layers, self.layers, strict=True):
            match layer:
                case Route():
                    x = module(outputs)
                case Shortcut():
                    x = x + outputs[layer.source]
                case Yolo():
                    heads.append(x)
                case _:
                    x = module(x)
            outputs.append(x)
        return tuple(heads)

    def conv_units(self) -> list[ConvUnit]:
        """Return the convolutional layers in Darknet's order."""
        return [module for module in self.layers if isinstance(module, ConvUnit)]

    def head_units(self) -> list[ConvUnit]:
        """Return the convolutional layers whose outputs are the heads."""
        pairs = zip(self.layers, self.config.layers[1:], strict=False)
        return [module for module, after in pairs if isinstance(after, Yolo)]


def _initialise(net: Darknet) -> None:
    """He et al. 2015 for the trunk; heads start small, expecting an object at `PRIOR` of the places."""
    for unit in net.conv_units():
        nn.init.kaiming_normal_(unit.conv.weight, a=0.1, mode="fan_out", nonlinearity="leaky_relu")
    for unit, head in zip(net.head_units(), net.heads, strict=True):
        nn.init.normal_(unit.conv.weight, std=0.01)
        nn.init.zeros_(unit.conv.bias)
        with torch.no_grad():
            logit = torch.logit(torch.tensor(PRIOR))
            unit.conv.bias.view(len(head.anchors), 5 + head.classes)[:, 4] = logit
