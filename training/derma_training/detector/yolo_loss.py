"""YOLOv4's loss: CIoU boxes, BCE objectness with an ignored middle ground, BCE classes, multi-anchor assignment.

As Darknet's yolo_layer.c, written in autograd: losses are summed over cells and divided by the batch. Normalisers
and thresholds are those of each head's [yolo] section.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as bce

from derma_training.detector.cfg import Head
from derma_training.detector.yolo_head import decode


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


def assign(sides: Tensor, heads: Sequence[Head]) -> Tensor:
    """Return which anchors take part for truths of sides (M, 2) px: (M, heads·A) bool.

    The one of the best shape always, and every other of a shape IoU above its head's iou_thresh.
    """
    flat = torch.tensor([pair for head in heads for pair in head.anchors], dtype=sides.dtype, device=sides.device)
    common = torch.minimum(sides[:, None], flat[None]).prod(dim=2)
    overlap = common / (sides.prod(dim=1)[:, None] + flat.prod(dim=1)[None] - common)
    least = torch.tensor([head.yolo.iou_thresh for head in heads for _ in head.anchors], device=sides.device)
    chosen = overlap > least
    chosen[torch.arange(len(sides), device=sides.device), overlap.argmax(dim=1)] = True
    return chosen


def yolo_loss(
    raws: Sequence[Tensor], heads: Sequence[Head], truths: Tensor, ignored: Tensor, scale: float = 1.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss (scalar) and its parts "box", "obj", "cls" (detached scalars), on the device of `raws`.

    truths: (M, 6) image index, class, x1 y1 x2 y2 network input px. ignored: (K, 5) image index and box:
    predictions centred in one are neither right nor wrong. `scale` is what the loss is multiplied by before its
    gradient is taken (mixed precision): max_delta limits the gradient without it.
    """
    batch = raws[0].shape[0]
    chosen = assign(truths[:, 4:6] - truths[:, 2:4], heads)
    parts = {name: torch.zeros((), device=raws[0].device) for name in ("box", "obj", "cls")}
    first = 0
    for raw, head in zip(raws, heads, strict=True):
        boxes, obj, cls = decode(_limited(raw, head, head.yolo.max_delta * scale / batch), head)
        m, a = chosen[:, first : first + len(head.anchors)].nonzero(as_tuple=True)
        first += len(head.anchors)
        truth = truths[m]
        at = _cells(truth, a, head.stride, boxes.shape[2:4])
        wanted = torch.zeros_like(obj)
        wanted[at] = 1.0
        with torch.no_grad():
            weight = _weights(boxes, truths, ignored, head.stride, head.yolo.ignore_thresh)
            weight[at] = 1.0
        parts["obj"] = parts["obj"] + (bce(obj, wanted, reduction="none") * weight).sum() * head.yolo.obj_normalizer
        if len(m):
            share = _shares(at, obj.shape)
            apart = ((1 - ciou(boxes[at], truth[:, 2:6])) * share).sum()
            parts["box"] = parts["box"] + apart * head.yolo.iou_normalizer
            one_hot = torch.nn.functional.one_hot(truth[:, 1].long(), head.classes).to(cls.dtype)
            wrong = (bce(cls[at], one_hot, reduction="none") * share[:, None]).sum()
            parts["cls"] = parts["cls"] + wrong * head.yolo.cls_normalizer
    total = torch.stack(list(parts.values())).sum() / batch
    return total, {name: value.detach() / batch for name, value in parts.items()}


def _limited(raw: Tensor, head: Head, limit: float) -> Tensor:
    """Return raw (N, A·(5+C), gh, gw) with the gradient on its box outputs cut to ± limit (Darknet's max_delta)."""
    if not raw.requires_grad:
        return raw
    raw = raw.view_as(raw)  # a hook on the network's own output would stay when a raw is used twice

    def cut(gradient: Tensor) -> Tensor:
        n, _, gh, gw = gradient.shape
        cells = gradient.reshape(n, len(head.anchors), 5 + head.classes, gh, gw)
        return torch.cat([cells[:, :, :4].clamp(-limit, limit), cells[:, :, 4:]], dim=2).view_as(gradient)

    raw.register_hook(cut)
    return raw


def _cells(truth: Tensor, anchor: Tensor, stride: int, grid: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the index (image, anchor, row, column) of the cell that holds each truth's (P, 6) centre."""
    centre = (truth[:, 2:4] + truth[:, 4:6]) / 2
    column = (centre[:, 0] / stride).long().clamp(0, grid[1] - 1)
    row = (centre[:, 1] / stride).long().clamp(0, grid[0] - 1)
    return truth[:, 0].long(), anchor, row, column


def _shares(at: tuple[Tensor, ...], shape: Sequence[int]) -> Tensor:
    """Return the weight (P,) of each assignment: truths that fall on one prediction share it (Darknet's averaging)."""
    image, anchor, row, column = at
    place = ((image * shape[1] + anchor) * shape[2] + row) * shape[3] + column
    _, inverse, counts = torch.unique(place, return_inverse=True, return_counts=True)
    return 1.0 / counts[inverse].float()


def _weights(boxes: Tensor, truths: Tensor, ignored: Tensor, stride: int, ignore_thresh: float) -> Tensor:
    """Return the objectness weights (N, A, gh, gw) of free predictions: 0 near a truth or in an ignored box."""
    n, _, gh, gw, _ = boxes.shape
    weight = torch.ones(boxes.shape[:4], device=boxes.device)
    for image in range(n):
        own = truths[truths[:, 0] == image, 2:6]
        if len(own):
            weight[image][_best_iou(boxes[image], own) > ignore_thresh] = 0.0
    x = (torch.arange(gw, device=boxes.device) + 0.5) * stride
    y = (torch.arange(gh, device=boxes.device) + 0.5) * stride
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
