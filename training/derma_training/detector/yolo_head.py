"""What YOLO's raw outputs mean: decoding, the graph that is exported, and anchors fitted to boxes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from derma_training.detector.cfg import Head
from derma_training.detector.layers import Darknet

MAX_LOG_SIDE = 8.0  # e^8 anchors are larger than any picture; keeps the exponential finite


def decode(raw: Tensor, head: Head) -> tuple[Tensor, Tensor, Tensor]:
    """Decode one head (Redmon and Farhadi 2018, §2.1, with Darknet's scale_x_y), in float32.

    raw: (N, A·(5+C), gh, gw). Returns boxes (N, A, gh, gw, 4) xyxy network input px, objectness logits
    (N, A, gh, gw) and class logits (N, A, gh, gw, C).
    """
    gh, gw, count = int(raw.shape[2]), int(raw.shape[3]), len(head.anchors)
    cells = raw.float().view(-1, count, 5 + head.classes, gh, gw).permute(0, 1, 3, 4, 2)
    like = {"dtype": torch.float32, "device": raw.device}
    y, x = torch.meshgrid(torch.arange(gh, **like), torch.arange(gw, **like), indexing="ij")
    corner = torch.stack([x, y], dim=-1)
    sides = torch.tensor(head.anchors, **like).view(1, count, 1, 1, 2)
    scale = head.yolo.scale_x_y
    centre = (torch.sigmoid(cells[..., 0:2]) * scale + (corner - (scale - 1) / 2)) * head.stride
    half = torch.exp(cells[..., 2:4].clamp(max=MAX_LOG_SIDE)) * (sides / 2)
    return torch.cat([centre - half, centre + half], dim=-1), cells[..., 4], cells[..., 5:]


class DetectorGraph(nn.Module):  # type: ignore[misc]
    """A network with its decoding: image (N, 3, H, W) in [0, 1] → boxes (N, A, 4) px, scores (N, A, C)."""

    def __init__(self, net: Darknet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (N, A, 4) xyxy network input px and scores (N, A, C) = objectness · class probability."""
        all_boxes, all_scores = [], []
        for raw, head in zip(self.net(image), self.net.heads, strict=True):
            boxes, objectness, kinds = decode(raw, head)
            scores = torch.sigmoid(objectness)[..., None] * torch.sigmoid(kinds)
            places = len(head.anchors) * int(raw.shape[2]) * int(raw.shape[3])
            all_boxes.append(boxes.reshape(-1, places, 4))
            all_scores.append(scores.reshape(-1, places, head.classes))
        return torch.cat(all_boxes, dim=1), torch.cat(all_scores, dim=1)


def shape_iou(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the IoU (N, M) of sides (N, 2) and (M, 2), both boxes on one centre."""
    common = np.minimum(a[:, None], b[None]).prod(axis=2)
    return np.asarray(common / (a.prod(axis=1)[:, None] + b.prod(axis=1)[None] - common))


def fit_anchors(sides: npt.NDArray[np.float64], count: int, seed: int = 0, rounds: int = 60) -> npt.NDArray[np.float64]:
    """Cluster box sides (N, 2) into (count, 2), smallest area first: k-means with distance 1 − IoU.

    Redmon and Farhadi 2017, "YOLO9000", §2.
    """
    rng = np.random.default_rng(seed)
    by_area = sides[np.argsort(sides.prod(axis=1))]
    centres = by_area[(np.linspace(0.05, 0.95, count) * (len(sides) - 1)).astype(int)]
    for _ in range(rounds):
        nearest = shape_iou(sides, centres).argmax(axis=1)
        moved = np.stack(
            [
                np.median(sides[nearest == k], axis=0) if np.any(nearest == k) else sides[rng.integers(len(sides))]
                for k in range(count)
            ]
        )
        if np.allclose(moved, centres):
            break
        centres = moved
    return np.asarray(centres[np.argsort(centres.prod(axis=1))])
