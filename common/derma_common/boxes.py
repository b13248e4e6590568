"""Box arithmetic. A box is x1 y1 x2 y2 in float pixels of the captured frame, x2 and y2 exclusive edges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]


def area(boxes: Boxes) -> npt.NDArray[np.float32]:
    """Return the areas (N,) px² of boxes (N, 4) xyxy px; an inverted box has area 0."""
    sides = np.maximum(boxes[:, 2:4] - boxes[:, 0:2], 0.0)
    return np.asarray(sides[:, 0] * sides[:, 1], dtype=np.float32)


def iou(a: Boxes, b: Boxes) -> npt.NDArray[np.float32]:
    """Return the intersection over union (N, M) of boxes (N, 4) and (M, 4), both xyxy px."""
    top_left = np.maximum(a[:, None, 0:2], b[None, :, 0:2])
    bottom_right = np.minimum(a[:, None, 2:4], b[None, :, 2:4])
    sides = np.maximum(bottom_right - top_left, 0.0)
    intersection = sides[..., 0] * sides[..., 1]
    union = area(a)[:, None] + area(b)[None, :] - intersection
    return np.asarray(intersection / np.maximum(union, 1e-9), dtype=np.float32)


def nms(boxes: Boxes, scores: npt.NDArray[np.float32], iou_threshold: float) -> npt.NDArray[np.intp]:
    """Return the indices (K,) kept by greedy non-maximum suppression, best score first.

    boxes: (N, 4) float32 xyxy px, scores: (N,). A box is suppressed when its IoU with a kept one is
    strictly above `iou_threshold`, as in ONNX NonMaxSuppression. Ties keep the earlier row.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        kept.append(int(best))
        order = rest[iou(boxes[best : best + 1], boxes[rest])[0] <= iou_threshold]
    return np.asarray(kept, dtype=np.intp)


def clip(boxes: Boxes, width: int, height: int) -> Boxes:
    """Return boxes (N, 4) xyxy px cut to a picture of width × height px."""
    limits = np.asarray([width, height, width, height], dtype=np.float32)
    return np.clip(boxes, np.float32(0.0), limits)


def match(found: Boxes, truth: Boxes, iou_threshold: float = 0.5) -> list[tuple[int, int]]:
    """Pair found boxes (N, 4), best first, with truth boxes (M, 4), each used once, as COCO evaluation does.

    Returns (found index, truth index) pairs with IoU ≥ `iou_threshold`.
    """
    pairs: list[tuple[int, int]] = []
    if not len(found) or not len(truth):
        return pairs
    overlaps = iou(found, truth)
    free = np.ones(len(truth), dtype=bool)
    for i in range(len(found)):
        candidates = np.where(free, overlaps[i], -1.0)
        j = int(np.argmax(candidates))
        if candidates[j] >= iou_threshold:
            free[j] = False
            pairs.append((i, j))
    return pairs
