"""YOLOv4's loss: CIoU boxes, BCE objectness with an ignored middle ground, BCE classes, multi-anchor assignment.

As Darknet's yolo_layer.c, written in autograd: losses are summed over cells and divided by the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from derma_training.detector.yolo_head import Anchors, decode


@dataclass(frozen=True)
class LossSettings:
    """Darknet's names and values (yolov4.cfg)."""

    iou_normalizer: float = 0.07
    obj_normalizer: float = 1.0
    cls_normalizer: float = 1.0
    ignore_thresh: float = 0.7  # a free prediction this close to a truth is not punished
    iou_thresh: float = 0.213  # every anchor of this shape IoU takes part, not the best alone


def ciou(a: Tensor, b: Tensor) -> Tensor:
    """Return the complete IoU (N,) of boxes (N, 4) xyxy: IoU − ρ²/c² − αv (Zheng et al. 2020, eq. 10)."""
    sides_a, sides_b = a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2]
    common = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    iou = common / (sides_a.prod(dim=1) + sides_b.prod(dim=1) - common + 1e-9)
    hull = torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])
    apart = ((a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]) / 2).pow(2).sum(dim=1)
    angle_a = torch.atan(sides_a[:, 0] / (sides_a[:, 1] + 1e-9))
    angle_b = torch.atan(sides_b[:, 0] / (sides_b[:, 1] + 1e-9))
    v = (4 / math.pi**2) * (angle_b - angle_a).pow(2)
    alpha = (v / (1 - iou + v + 1e-6)).detach()
    return iou - apart / (hull.pow(2).sum(dim=1) + 1e-9) - alpha * v


def assign(sides: Tensor, anchors: Anchors, iou_thresh: float) -> Tensor:
    """Return which anchors take part for truths of sides (M, 2) px: (M, heads·A) bool, the best one always."""
    flat = torch.tensor([pair for head in anchors for pair in head], dtype=sides.dtype)
    common = torch.minimum(sides[:, None], flat[None]).prod(dim=2)
    overlap = common / (sides.prod(dim=1)[:, None] + flat.prod(dim=1)[None] - common)
    chosen = overlap > iou_thresh
    chosen[torch.arange(len(sides)), overlap.argmax(dim=1)] = True
    return chosen


def yolo_loss(
    raws: Sequence[Tensor],
    anchors: Anchors,
    strides: Sequence[int],
    classes: int,
    truths: Tensor,
    ignored: Tensor,
    settings: LossSettings,
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss (scalar) and its parts.

    truths: (M, 6) image index, class, x1 y1 x2 y2 network input px. ignored: (K, 5) image index and box:
    predictions centred in one are neither right nor wrong.
    """
    batch = raws[0].shape[0]
    chosen = assign(truths[:, 4:6] - truths[:, 2:4], anchors, settings.iou_thresh)
    box = objectness = kind = raws[0].new_zeros(())
    for h, (raw, shapes, stride) in enumerate(zip(raws, anchors, strides, strict=True)):
        boxes, obj, cls = decode(raw, shapes, stride, classes)
        part = chosen[:, h * len(shapes) : (h + 1) * len(shapes)]
        m, a = part.nonzero(as_tuple=True)
        truth, at = _cells(truths[m], a, stride, boxes.shape[2:4])
        wanted = torch.zeros_like(obj)
        wanted[at] = 1.0
        with torch.no_grad():
            weight = _weights(boxes, truths, ignored, stride, settings.ignore_thresh)
            weight[at] = 1.0
        objectness = objectness + (bce(obj, wanted, reduction="none") * weight).sum()
        if len(m):
            box = box + (1 - ciou(boxes[at], truth[:, 2:6])).sum()
            one_hot = torch.zeros_like(cls[at])
            one_hot[torch.arange(len(m)), truth[:, 1].long()] = 1.0
            kind = kind + bce(cls[at], one_hot, reduction="sum")
    parts = {"box": box * settings.iou_normalizer, "obj": objectness * settings.obj_normalizer}
    parts["cls"] = kind * settings.cls_normalizer
    total = (parts["box"] + parts["obj"] + parts["cls"]) / batch
    return total, {name: float(value.detach()) / batch for name, value in parts.items()}


def _cells(truth: Tensor, anchor: Tensor, stride: int, grid: Sequence[int]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the truths (P, 6) and the index (image, anchor, row, column) of the cell that holds each centre."""
    centre = (truth[:, 2:4] + truth[:, 4:6]) / 2
    column = (centre[:, 0] / stride).long().clamp(0, grid[1] - 1)
    row = (centre[:, 1] / stride).long().clamp(0, grid[0] - 1)
    return truth, (truth[:, 0].long(), anchor, row, column)


def _weights(boxes: Tensor, truths: Tensor, ignored: Tensor, stride: int, ignore_thresh: float) -> Tensor:
    """Return the objectness weights (N, A, gh, gw) of free predictions: 0 near a truth or in an ignored box."""
    n, _, gh, gw, _ = boxes.shape
    weight = torch.ones(boxes.shape[:4])
    for image in range(n):
        own = truths[truths[:, 0] == image, 2:6]
        if len(own):
            weight[image][_best_iou(boxes[image], own) > ignore_thresh] = 0.0
    x, y = (torch.arange(gw) + 0.5) * stride, (torch.arange(gh) + 0.5) * stride
    for row in ignored:
        inside_x = (x > row[1] - stride / 2) & (x < row[3] + stride / 2)
        inside_y = (y > row[2] - stride / 2) & (y < row[4] + stride / 2)
        weight[int(row[0])] *= 1.0 - (inside_y[:, None] & inside_x[None]).float()
    return weight


def _best_iou(boxes: Tensor, truths: Tensor) -> Tensor:
    """Return the best IoU (A, gh, gw) of predictions (A, gh, gw, 4) with truths (M, 4)."""
    flat = boxes.reshape(-1, 1, 4)
    common = (torch.minimum(flat[..., 2:], truths[:, 2:]) - torch.maximum(flat[..., :2], truths[:, :2])).clamp(min=0)
    shared = common.prod(dim=2)
    areas = (flat[..., 2:] - flat[..., :2]).prod(dim=2) + (truths[:, 2:] - truths[:, :2]).prod(dim=1)
    return (shared / (areas - shared + 1e-9)).amax(dim=1).view(boxes.shape[:3])
