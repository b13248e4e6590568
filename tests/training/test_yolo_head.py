"""Decoding and anchors against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")

from derma_training.detector.yolo_head import DetectorGraph, decode, fit_anchors, shape_iou  # noqa: E402
from derma_training.detector.yolov4_tiny import STRIDES, YoloV4Tiny  # noqa: E402

pytestmark = pytest.mark.train

ANCHORS = [[(40.0, 30.0), (60.0, 60.0), (90.0, 80.0)], [(8.0, 9.0), (14.0, 12.0), (20.0, 22.0)]]


def test_a_cell_decodes_as_darknet_does():
    raw = torch.zeros(1, 2 * 7, 2, 3)
    values = (0.4, -1.2, 0.3, -0.5, 1.5, -0.7, 2.0)  # tx ty tw th obj cls0 cls1
    raw[0, 7:, 1, 2] = torch.tensor(values)  # second anchor, row 1, column 2
    boxes, objectness, classes = decode(raw, [(10.0, 10.0), (20.0, 40.0)], 32, 2)

    def sigmoid(v):
        return 1 / (1 + math.exp(-v))

    x = (2 + 1.05 * sigmoid(0.4) - 0.025) * 32
    y = (1 + 1.05 * sigmoid(-1.2) - 0.025) * 32
    w, h = 20 * math.exp(0.3), 40 * math.exp(-0.5)
    assert boxes[0, 1, 1, 2].tolist() == pytest.approx([x - w / 2, y - h / 2, x + w / 2, y + h / 2], rel=1e-5)
    assert objectness[0, 1, 1, 2] == 1.5 and classes[0, 1, 1, 2].tolist() == pytest.approx([-0.7, 2.0])


def test_the_exported_graph_gives_all_boxes_with_objectness_times_class():
    graph = DetectorGraph(YoloV4Tiny(2).eval(), ANCHORS, STRIDES, 2)
    with torch.no_grad():
        boxes, scores = graph(torch.rand(1, 3, 64, 64))
    assert boxes.shape == (1, 3 * (4 + 16), 4) and scores.shape == (1, 60, 2)
    assert scores.min() >= 0 and scores.max() <= 1
    assert torch.all(boxes[..., 2:] > boxes[..., :2])


def test_shape_iou_compares_sides_alone():
    found = shape_iou(np.asarray([[2.0, 4.0]]), np.asarray([[2.0, 4.0], [4.0, 2.0], [4.0, 8.0]]))
    assert found[0] == pytest.approx([1.0, 4 / 12, 8 / 32])


def test_anchors_find_the_clusters_of_the_sides_smallest_first():
    rng = np.random.default_rng(0)
    centres = np.asarray([[10.0, 12.0], [40.0, 30.0], [120.0, 150.0]])
    sides = np.concatenate([c * rng.uniform(0.9, 1.1, (50, 2)) for c in centres[::-1]])
    assert fit_anchors(sides, 3) == pytest.approx(centres, rel=0.05)
