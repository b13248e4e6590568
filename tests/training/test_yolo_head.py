"""Decoding and anchors against figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")

from support.darknet import thinned  # noqa: E402

from derma_training.detector.layers import Darknet  # noqa: E402
from derma_training.detector.networks import network  # noqa: E402
from derma_training.detector.yolo_head import DetectorGraph, decode, fit_anchors, shape_iou  # noqa: E402

pytestmark = pytest.mark.train

ANCHORS = [[(10.0, 10.0), (20.0, 40.0)], [(8.0, 9.0), (14.0, 12.0)]]


def sigmoid(v):
    return 1 / (1 + math.exp(-v))


@pytest.mark.parametrize(("name", "number", "scale"), [("yolov4-tiny", 0, 1.05), ("yolov4", 1, 1.1)])
def test_a_cell_decodes_as_darknet_does(name, number, scale):
    anchors = ANCHORS if name == "yolov4-tiny" else [ANCHORS[1], ANCHORS[0], ANCHORS[1]]
    head = network(name, 2, 96, 64, anchors).heads[number]
    raw = torch.zeros(1, 2 * 7, 2, 3)
    raw[0, 7:, 1, 2] = torch.tensor((0.4, -1.2, 0.3, -0.5, 1.5, -0.7, 2.0))  # tx ty tw th obj cls0 cls1 of anchor 1
    boxes, objectness, classes = decode(raw, head)

    x = (2 + scale * sigmoid(0.4) - (scale - 1) / 2) * head.stride
    y = (1 + scale * sigmoid(-1.2) - (scale - 1) / 2) * head.stride
    w, h = 20 * math.exp(0.3), 40 * math.exp(-0.5)
    assert boxes[0, 1, 1, 2].tolist() == pytest.approx([x - w / 2, y - h / 2, x + w / 2, y + h / 2], rel=1e-5)
    assert objectness[0, 1, 1, 2] == 1.5 and classes[0, 1, 1, 2].tolist() == pytest.approx([-0.7, 2.0])


def test_half_precision_and_wild_numbers_decode_to_finite_boxes():
    head = network("yolov4-tiny", 2, anchors=ANCHORS).heads[0]
    boxes, _, _ = decode(torch.full((1, 14, 2, 2), 1000.0, dtype=torch.float16), head)
    assert boxes.dtype == torch.float32 and bool(torch.isfinite(boxes).all())


def test_the_graph_gives_all_boxes_with_objectness_times_class():
    net = Darknet(thinned(network("yolov4-tiny", 2, 64, 96), 8)).eval()
    image = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        boxes, scores = DetectorGraph(net)(image)
        _, objectness, classes = decode(net(image)[1], net.heads[1])
    assert boxes.shape == (2, 3 * (6 + 24), 4) and scores.shape == (2, 90, 2)
    assert torch.all(boxes[..., 2:] > boxes[..., :2])
    wanted = objectness.sigmoid()[..., None] * classes.sigmoid()
    assert torch.allclose(scores[:, 18:], wanted.reshape(2, 72, 2))


def test_shape_iou_compares_sides_alone():
    found = shape_iou(np.asarray([[2.0, 4.0]]), np.asarray([[2.0, 4.0], [4.0, 2.0], [4.0, 8.0]]))
    assert found[0] == pytest.approx([1.0, 4 / 12, 8 / 32])


def test_anchors_find_the_clusters_of_the_sides_smallest_first():
    rng = np.random.default_rng(0)
    centres = np.asarray([[10.0, 12.0], [40.0, 30.0], [120.0, 150.0]])
    sides = np.concatenate([c * rng.uniform(0.9, 1.1, (50, 2)) for c in centres[::-1]])
    assert fit_anchors(sides, 3) == pytest.approx(centres, rel=0.05)
