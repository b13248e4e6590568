"""Weights to start a training from: a published .weights file, a part of one, or a model that derma exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from derma_common.errors import ModelError
from derma_training.detector.cfg import Config, Yolo
from derma_training.detector.darknet_weights import Floats, fill, layer_floats, read_file
from derma_training.detector.layers import Darknet
from derma_training.detector.onnx_weights import load_onnx


def start_from(net: Darknet, path: Path) -> str:
    """Fill a network from a file of the same architecture as far as it goes; return one sentence on what was taken.

    An .onnx file is one that `export` wrote. Any other is Darknet's: whole, for any number of classes (heads of another
    number start anew), or cut off after some layer, as yolov4.conv.137 and yolov4-tiny.conv.29 are. Raises ModelError
    when it is neither.
    """
    if path.suffix == ".onnx":
        load_onnx(net, path)
        return f"all {len(net.conv_units())} convolutions from {path}, batch normalisation folded into them"
    _, floats = read_file(path)
    sizes = layer_floats(net.config)
    units, total = net.conv_units(), sum(sizes)
    if len(floats) == total:
        fill(units, floats, path)
        return f"all {len(units)} convolutions from {path}"
    ends = np.cumsum(sizes).tolist()
    if len(floats) in ends:
        count = ends.index(len(floats)) + 1
        fill(units[:count], floats, path)
        return f"the first {count} of {len(units)} convolutions from {path}"
    classes = _classes_of(net.config, len(floats))
    if classes is None:
        raise ModelError(
            f"{path} holds {len(floats)} numbers; this network has {total}, and no cut after a layer and no other "
            "number of classes gives that many: the file is truncated or of another network"
        )
    _fill_but_heads(net, floats, classes, path)
    return f"all convolutions but the {len(net.heads)} heads from {path}, which knows {classes} classes"


def _classes_of(config: Config, count: int) -> int | None:
    """Return the number of classes with which the network has `count` floats, None when none does."""
    per_class = sum(
        len(layer.anchors) * (config.input_of(index - 1)[0] + 1)
        for index, layer in enumerate(config.layers)
        if isinstance(layer, Yolo)
    )
    more, rest = divmod(count - sum(layer_floats(config)), per_class)
    classes = config.heads[0].classes + more
    return classes if rest == 0 and classes > 0 else None


def _fill_but_heads(net: Darknet, floats: Floats, classes: int, path: Path) -> None:
    """Fill all layers but the heads from a file whose heads are for another number of classes."""
    heads = dict(zip(net.head_units(), net.heads, strict=True))
    trunk, kept, place = [], [], 0
    for unit, own in zip(net.conv_units(), layer_floats(net.config), strict=True):
        if unit in heads:
            head = heads[unit]
            place += own // (5 + head.classes) * (5 + classes)
        else:
            trunk.append(unit)
            kept.append(floats[place : place + own])
            place += own
    fill(trunk, np.concatenate(kept), path)
