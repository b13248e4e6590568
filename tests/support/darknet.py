"""Networks with random weights, and what OpenCV's Darknet reader makes of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from derma_training.detector.cfg import Config, Convolutional, Yolo
from derma_training.detector.cfg_reader import parse_cfg
from derma_training.detector.cfg_sections import sections
from derma_training.detector.darknet_weights import save_weights
from derma_training.detector.layers import Darknet
from derma_training.detector.yolo_head import decode

OPENCV_BN_EPS = 1e-6
Array = npt.NDArray[np.float32]


def thinned(config: Config, by: int) -> Config:
    """Return the network with `by` times fewer channels everywhere but in its heads: quick, and wired the same."""
    parts = sections(config.text)
    for part, layer, after in zip(parts[1:], config.layers, [*config.layers[1:], None], strict=True):
        if isinstance(layer, Convolutional) and not isinstance(after, Yolo):
            part.options["filters"] = str(layer.filters // by)
    return parse_cfg("\n".join(part.text() for part in parts))


def random_network(config: Config, seed: int = 0) -> Darknet:
    """Return a network in eval mode with random weights and batch statistics, and OpenCV's eps."""
    net, chance = Darknet(config).eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for unit in net.conv_units():
            # outputs neither grow nor fade: exp() of a grown one would overflow
            unit.conv.weight.normal_(0, 0.9 / unit.conv.weight[0].numel() ** 0.5, generator=chance)
            if unit.conv.bias is not None:
                unit.conv.bias.normal_(0, 0.3, generator=chance)
                continue
            unit.norm.eps = OPENCV_BN_EPS
            unit.norm.weight.uniform_(0.7, 1.3, generator=chance)
            unit.norm.bias.normal_(0, 0.2, generator=chance)
            unit.norm.running_mean.normal_(0, 0.2, generator=chance)
            unit.norm.running_var.uniform_(0.6, 1.4, generator=chance)
    return net


def own_outputs(net: Darknet, image: Array) -> list[Array]:
    """Return for each head rows (cx, cy, w, h in shares of the input, class scores…), by y, then x, then anchor."""
    _, _, height, width = image.shape
    rows = []
    with torch.no_grad():
        for raw, head in zip(net(torch.from_numpy(image)), net.heads, strict=True):
            boxes, objectness, classes = decode(raw, head)
            middle, sides = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
            scores = objectness.sigmoid()[..., None] * classes.sigmoid()
            share = torch.tensor([width, height], dtype=torch.float32)
            row = torch.cat([middle / share, sides / share, scores], dim=-1)
            rows.append(row.permute(0, 2, 3, 1, 4).reshape(-1, 4 + head.classes).numpy())
    return rows


def opencv_outputs(net: Darknet, image: Array, folder: Path) -> list[Array]:
    """Return the same rows from OpenCV, which reads the network from files that derma writes."""
    cfg, weights = folder / "net.cfg", folder / "net.weights"
    cfg.write_text(net.config.text.replace("[yolo]", "[yolo]\nthresh=0"))  # else scores up to 0.2 become 0
    save_weights(net, weights)
    read = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    weights.unlink()
    read.setInput(image)
    names = [name for name in read.getUnconnectedOutLayersNames() if name.startswith("yolo")]
    return [np.delete(np.asarray(out), 4, axis=1) for out in read.forward(names)]
