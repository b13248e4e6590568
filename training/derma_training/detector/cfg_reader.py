"""From Darknet's .cfg text to typed layers, and from one network to the same with other classes, size and anchors.

An option that would change what the network computes and is not built here is refused, not passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from derma_common.errors import ModelError
from derma_training.detector.cfg import (
    Anchors,
    Config,
    Convolutional,
    Layer,
    MaxPool,
    Route,
    Shape,
    Shortcut,
    Upsample,
    Yolo,
    output_shape,
)
from derma_training.detector.cfg_sections import Section, sections

T = TypeVar("T")

# training and suppression settings of Darknet, without effect on what the network computes
_PASSED_OVER = {
    "beta_nms", "counters_per_class", "focal_loss", "iou_loss", "iou_thresh_kind", "jitter", "label_smooth_eps",
    "nms_kind", "num", "objectness_smooth", "random", "resize", "stopbackward", "thresh", "truth_thresh",
    "uc_normalizer",
}  # fmt: skip


def read_cfg(path: Path) -> Config:
    """Read a .cfg file. Raises ModelError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read as a Darknet cfg: {error}") from error
    return parse_cfg(text, str(path))


def parse_cfg(text: str, name: str = "cfg") -> Config:
    """Read cfg text; `name` stands for it in messages. Raises ModelError with the line that is wrong."""
    head, *rest = sections(text, name)
    net = _Options(head, name)
    size = net.whole("channels", 3), net.whole("height"), net.whole("width")
    layers: list[Layer] = []
    shapes: list[Shape] = []
    for index, section in enumerate(rest):
        options = _Options(section, name)
        layer = _layer(options, index, layers)
        options.finish()
        try:
            shapes.append(output_shape(layer, shapes[-1] if shapes else size, shapes))
        except ValueError as error:
            raise options.wrong(str(error)) from None
        layers.append(layer)
    if not any(isinstance(layer, Yolo) for layer in layers):
        raise ModelError(f"{name}: no [yolo] section, so this is no detector")
    return Config(text, size, tuple(layers), tuple(shapes))


def adapted(config: Config, classes: int, width: int, height: int, anchors: Anchors | None = None) -> Config:
    """Return the same network for other classes, another input size and, where given, other anchors.

    `anchors` are per head in the order of the outputs. Raises ModelError when they do not fit the heads.
    """
    parts = sections(config.text)
    parts[0].options.update(width=str(width), height=str(height))
    heads = [index for index, layer in enumerate(config.layers) if isinstance(layer, Yolo)]
    if anchors is not None and len(anchors) != len(heads):
        raise ModelError(f"there are anchors for {len(anchors)} heads, the network has {len(heads)}")
    pairs = [pair for head in anchors or () for pair in head]
    for number, index in enumerate(heads):
        options = parts[index + 1].options
        options["classes"] = str(classes)
        count = len(config.heads[number].anchors)
        if anchors is not None:
            count = len(anchors[number])
            first = sum(len(head) for head in anchors[:number])
            options["mask"] = ",".join(str(first + n) for n in range(count))
            options["anchors"] = ", ".join(f"{w!r},{h!r}" for w, h in pairs)
            options["num"] = str(len(pairs))
        if isinstance(config.layers[index - 1], Convolutional):
            parts[index].options["filters"] = str(count * (5 + classes))
    return parse_cfg("\n".join(part.text() for part in parts))


class _Options:
    """Takes the options of one section, typed; knows at the end which ones nobody took."""

    def __init__(self, section: Section, name: str) -> None:
        self.section, self._name, self._taken = section, name, set[str]()

    def take(self, key: str, read: Callable[[str], T], default: T | None = None) -> T:
        """Return option `key` as `read` reads it, or the default; with neither it is a ModelError."""
        self._taken.add(key)
        value = self.section.options.get(key)
        if value is None:
            if default is None:
                raise self.wrong(f"lacks the option {key}")
            return default
        try:
            return read(value)
        except ValueError:
            raise self.wrong(f"has a {key} that cannot be read: {value!r}") from None

    def whole(self, key: str, default: int | None = None, least: int = 1) -> int:
        """Return a whole number of at least `least`."""
        value = self.take(key, int, default)
        if value < least:
            raise self.wrong(f"has {key}={value}, at least {least} is needed")
        return value

    def only(self, key: str, allowed: Sequence[str]) -> str:
        """Return one of the allowed words, the first of which is the default."""
        value = self.take(key, str, allowed[0])
        if value not in allowed:
            raise self.wrong(f"has {key}={value}; derma builds {', '.join(allowed)}")
        return value

    def finish(self) -> None:
        """Raise ModelError for an option that was not taken and is not known to be without effect."""
        unknown = sorted(set(self.section.options) - self._taken - _PASSED_OVER)
        if unknown:
            raise self.wrong(f"has an option that derma does not know: {', '.join(unknown)}")

    def wrong(self, what: str) -> ModelError:
        """Return the error that says where and what."""
        return ModelError(f"{self._name}, line {self.section.line}: [{self.section.kind}] {what}")


def _layer(options: _Options, index: int, before: Sequence[Layer]) -> Layer:
    """Return layer `index`, read from its section."""
    kind = options.section.kind
    if kind not in _READERS:
        raise options.wrong(f"is no layer that derma can build; it knows {', '.join(_READERS)}")
    layer = _READERS[kind](options, index)
    if before and isinstance(before[-1], Yolo) and not isinstance(layer, Route):
        raise options.wrong("follows a [yolo]: only a [route] can")
    sources = layer.layers if isinstance(layer, Route) else [layer.source] if isinstance(layer, Shortcut) else []
    for source in sources:
        if not 0 <= source < index or isinstance(before[source], Yolo):
            raise options.wrong(f"is layer {index} and refers to layer {source}, which it cannot take")
    return layer


def _convolutional(options: _Options, index: int) -> Layer:
    size = options.whole("size")
    explicit = options.whole("padding", 0, least=0)
    return Convolutional(
        filters=options.whole("filters"),
        size=size,
        stride=options.whole("stride", 1),
        padding=size // 2 if options.take("pad", int, 0) else explicit,
        groups=options.whole("groups", 1),
        batch_normalize=bool(options.take("batch_normalize", int, 0)),
        activation=options.only("activation", ("linear", "leaky", "mish")),  # type: ignore[arg-type]
    )


def _route(options: _Options, index: int) -> Layer:
    layers = [n if n >= 0 else index + n for n in options.take("layers", _wholes)]
    groups = options.whole("groups", 1)
    group_id = options.whole("group_id", 0, least=0)
    if group_id >= groups:
        raise options.wrong(f"has group_id={group_id} of groups={groups}, counted from 0")
    return Route(tuple(layers), groups, group_id)


def _shortcut(options: _Options, index: int) -> Layer:
    source = options.take("from", int)
    options.only("activation", ("linear",))
    return Shortcut(source if source >= 0 else index + source)


def _maxpool(options: _Options, index: int) -> Layer:
    stride = options.whole("stride", 1)
    return MaxPool(options.whole("size", stride), stride)


def _upsample(options: _Options, index: int) -> Layer:
    return Upsample(options.whole("stride", 2))


def _yolo(options: _Options, index: int) -> Layer:
    numbers = options.take("anchors", _numbers)
    pairs = list(zip(numbers[::2], numbers[1::2], strict=False))
    mask = options.take("mask", _wholes, list(range(len(pairs))))
    if len(numbers) % 2 or min(numbers) <= 0 or not all(0 <= n < len(pairs) for n in mask):
        raise options.wrong("needs pairs of positive anchors, and a mask that counts them from 0")
    options.only("new_coords", ("0",))
    return Yolo(
        anchors=tuple(pairs[n] for n in mask),
        classes=options.whole("classes"),
        scale_x_y=options.take("scale_x_y", _number, 1.0),
        ignore_thresh=options.take("ignore_thresh", _number, 0.5),
        iou_thresh=options.take("iou_thresh", _number, 1.0),
        iou_normalizer=options.take("iou_normalizer", _number, 0.75),
        obj_normalizer=options.take("obj_normalizer", _number, 1.0),
        cls_normalizer=options.take("cls_normalizer", _number, 1.0),
        max_delta=options.take("max_delta", _number, math.inf),
    )


_READERS: dict[str, Callable[[_Options, int], Layer]] = {
    "convolutional": _convolutional,
    "route": _route,
    "shortcut": _shortcut,
    "maxpool": _maxpool,
    "upsample": _upsample,
    "yolo": _yolo,
}


def _wholes(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _numbers(text: str) -> list[float]:
    return [_number(part) for part in text.split(",")]


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
