"""What a Darknet network is: typed layers, the shapes that follow from them, and what they cost.

No torch here: a network can be read, checked and counted before it is built (`layers`). `cfg_reader` reads its text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, int, int]  # channels, height, width
Anchors = Sequence[Sequence[tuple[float, float]]]  # per head, (width, height) px of the network's input


@dataclass(frozen=True)
class Convolutional:
    """A convolution, batch normalisation where `batch_normalize`, an activation."""

    filters: int
    size: int
    stride: int
    padding: int
    groups: int
    batch_normalize: bool
    activation: Literal["linear", "leaky", "mish"]


@dataclass(frozen=True)
class Route:
    """Outputs of earlier layers joined along their channels; of each only part `group_id` of `groups`."""

    layers: tuple[int, ...]
    groups: int = 1
    group_id: int = 0


@dataclass(frozen=True)
class Shortcut:
    """The previous output plus that of layer `source`."""

    source: int


@dataclass(frozen=True)
class MaxPool:
    """The largest of each size × size window; size − 1 px of padding, the smaller half of it left and above."""

    size: int
    stride: int


@dataclass(frozen=True)
class Upsample:
    """Each cell repeated stride × stride times."""

    stride: int


@dataclass(frozen=True)
class Yolo:
    """A detection head on the previous output; the second half of the fields matter to its loss alone."""

    anchors: tuple[tuple[float, float], ...]  # of this head: what its mask selects
    classes: int
    scale_x_y: float
    ignore_thresh: float
    iou_thresh: float
    iou_normalizer: float
    obj_normalizer: float
    cls_normalizer: float
    max_delta: float


Layer = Convolutional | Route | Shortcut | MaxPool | Upsample | Yolo


@dataclass(frozen=True)
class Head:
    """A detection head and its place in the network: one cell of its output is stride × stride px of the input."""

    yolo: Yolo
    stride: int

    @property
    def anchors(self) -> tuple[tuple[float, float], ...]:
        """(width, height) px of the network's input."""
        return self.yolo.anchors

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        return self.yolo.classes


@dataclass(frozen=True)
class Config:
    """A network: its text, the size of its input, its layers and the shape of each layer's output."""

    text: str
    input: Shape
    layers: tuple[Layer, ...]
    shapes: tuple[Shape, ...]

    @property
    def heads(self) -> tuple[Head, ...]:
        """The detection heads, in the order of the network's outputs."""
        pairs = zip(self.layers, self.shapes, strict=True)
        return tuple(Head(layer, self.input[1] // shape[1]) for layer, shape in pairs if isinstance(layer, Yolo))

    def input_of(self, index: int) -> Shape:
        """Return the shape of what layer `index` takes from the layer before it."""
        return self.shapes[index - 1] if index else self.input


def output_shape(layer: Layer, before: Shape, earlier: Sequence[Shape]) -> Shape:
    """Return the shape of a layer's output, given the previous output's and all earlier layers'.

    Raises ValueError when the layer does not fit what it is put on.
    """
    channels, height, width = before
    match layer:
        case Convolutional():
            if channels % layer.groups or layer.filters % layer.groups:
                raise ValueError(f"groups={layer.groups} divides {channels} and {layer.filters} channels unevenly")
            shape = _convolved(layer, height, width)
        case Route():
            shape = _joined(layer, earlier)
        case Shortcut():
            if earlier[layer.source] != before:
                raise ValueError(f"adds layer {layer.source} of {earlier[layer.source]} to {before}")
            shape = before
        case MaxPool():
            shape = channels, (height - 1) // layer.stride + 1, (width - 1) // layer.stride + 1
        case Upsample():
            shape = channels, height * layer.stride, width * layer.stride
        case Yolo():
            wanted = len(layer.anchors) * (5 + layer.classes)
            if channels != wanted:
                per_place = f"{len(layer.anchors)} anchors and {layer.classes} classes"
                raise ValueError(f"takes filters={wanted} for {per_place}, got {channels}")
            shape = before
    if min(shape) < 1:
        raise ValueError(f"has nothing left of its input {before}")
    return shape


def _convolved(layer: Convolutional, height: int, width: int) -> Shape:
    rows, columns = ((side + 2 * layer.padding - layer.size) // layer.stride + 1 for side in (height, width))
    return layer.filters, rows, columns


def _joined(layer: Route, earlier: Sequence[Shape]) -> Shape:
    shapes = [earlier[index] for index in layer.layers]
    if len({shape[1:] for shape in shapes}) != 1:
        raise ValueError(f"joins layers of different sizes: {', '.join(f'{h}x{w}' for _, h, w in shapes)}")
    if any(shape[0] % layer.groups for shape in shapes):
        raise ValueError(f"groups={layer.groups} divides {[shape[0] for shape in shapes]} channels unevenly")
    return sum(shape[0] // layer.groups for shape in shapes), *shapes[0][1:]


def parameters(layer: Layer, channels: int) -> int:
    """Return the number of trainable parameters of a layer on `channels` channels."""
    if not isinstance(layer, Convolutional):
        return 0
    return _weights(layer, channels) + layer.filters * (2 if layer.batch_normalize else 1)


def stored_floats(layer: Layer, channels: int) -> int:
    """Return how many floats of a .weights file belong to a layer: batch normalisation has two statistics more."""
    statistics = 2 * layer.filters if isinstance(layer, Convolutional) and layer.batch_normalize else 0
    return parameters(layer, channels) + statistics


def operations(layer: Layer, before: Shape, after: Shape) -> int:
    """Return the floating-point operations of a layer on one picture, as Darknet counts them (BFLOPs · 10⁹)."""
    match layer:
        case Convolutional():
            return 2 * _weights(layer, before[0]) * after[1] * after[2]
        case MaxPool():
            return layer.size**2 * after[0] * after[1] * after[2]
        case Shortcut():
            return after[0] * after[1] * after[2]
    return 0


def _weights(layer: Convolutional, channels: int) -> int:
    return layer.filters * layer.size**2 * channels // layer.groups


def parameter_count(config: Config) -> int:
    """Return the number of trainable parameters of a network."""
    return sum(parameters(layer, config.input_of(i)[0]) for i, layer in enumerate(config.layers))


def bflops(config: Config) -> float:
    """Return the billions of floating-point operations for one picture."""
    pairs = zip(config.layers, config.shapes, strict=True)
    return sum(operations(layer, config.input_of(i), shape) for i, (layer, shape) in enumerate(pairs)) / 1e9
