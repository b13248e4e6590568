"""The loss: CIoU in closed form, assignment, and what is not punished."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")

from derma_training.detector.cfg import Head, Yolo  # noqa: E402
from derma_training.detector.yolo_loss import assign, ciou, yolo_loss  # noqa: E402

pytestmark = pytest.mark.train


def facts(anchors, stride, classes=1, **settings):
    """Return a head with yolov4.cfg's facts, but a box weight of 1."""
    known = {"scale_x_y": 1.05, "ignore_thresh": 0.7, "iou_thresh": 0.213, "iou_normalizer": 1.0}
    known |= {"obj_normalizer": 1.0, "cls_normalizer": 1.0, "max_delta": float("inf")}
    return Head(Yolo(anchors=anchors, classes=classes, **(known | settings)), stride)


def two_heads(**settings):
    return [facts(((64.0, 64.0),), 32, **settings), facts(((16.0, 16.0),), 16, **settings)]


def test_ciou_has_its_closed_form():
    a = torch.tensor([[0.0, 0, 2, 2], [0, 0, 4, 2], [0, 0, 1, 1], [0, 0, 5, 5]])
    b = torch.tensor([[1.0, 1, 3, 3], [0, 0, 2, 4], [3, 0, 4, 1], [0, 0, 5, 5]])
    v = 4 / math.pi**2 * (math.atan(0.5) - math.atan(2)) ** 2
    alpha = v / (1 - 1 / 3 + v)
    wanted = [1 / 7 - 2 / 18, 1 / 3 - 2 / 32 - alpha * v, 0 - 9 / 17, 1.0]
    assert ciou(a, b).tolist() == pytest.approx(wanted, abs=1e-5)


def test_every_anchor_of_like_shape_takes_part_and_the_best_one_always():
    chosen = assign(torch.tensor([[16.0, 16.0], [30.0, 30.0], [400.0, 10.0]]), two_heads())
    assert chosen.tolist() == [[False, True], [True, True], [True, False]]
    alone = assign(torch.tensor([[30.0, 30.0]]), two_heads(iou_thresh=1.0))
    assert alone.tolist() == [[False, True]]


def heads(objectness=-10.0):
    """Return raw heads (1, 6, 2, 2) and (1, 6, 4, 4) for one anchor and one class, a 64 px input."""
    raws = [torch.zeros(1, 6, 2, 2), torch.zeros(1, 6, 4, 4)]
    for raw in raws:
        raw[:, 4] = objectness
        raw[:, 5] = 10.0
    return raws


def loss(raws, truths=(), scale=1.0, ignored=(), **settings):
    truth = torch.tensor(truths, dtype=torch.float32).reshape(-1, 6)
    spared = torch.tensor(ignored, dtype=torch.float32).reshape(-1, 5)
    return yolo_loss(raws, two_heads(**settings), truth, spared, scale)


def test_a_silent_network_on_an_empty_picture_costs_nothing():
    total, parts = loss(heads())
    assert float(total) == pytest.approx(0, abs=2e-3) and parts["box"] == 0 and parts["cls"] == 0


def test_a_perfect_answer_costs_next_to_nothing_and_a_missed_lesion_much():
    raws = heads()
    truth = (0, 0, 32.0, 16.0, 48.0, 32.0)  # centre (40, 24): row 1, column 2 of the fine head
    missed, _ = loss(raws, [truth])
    raws[1][0, 4, 1, 2] = 10.0
    found, parts = loss(raws, [truth])
    assert float(missed) > 9 and float(found) < 0.01
    assert float(parts["box"]) == pytest.approx(0, abs=1e-4)


def test_a_detection_next_to_a_truth_and_one_in_an_ignored_box_are_not_punished():
    raws = heads()
    raws[1][0, 4, 1, 2] = 10.0
    wrong, _ = loss(raws)
    spared, _ = loss(raws, ignored=[(0, 30.0, 14.0, 50.0, 34.0)])
    assert float(wrong) > 9 and float(spared) < 0.01
    raws[1][0, 4, 1, 3] = 10.0
    raws[1][0, 0, 1, 3] = -20.0  # the neighbour's box, pushed to its left edge, half over the truth
    near, _ = loss(raws, [(0, 0, 36.0, 16.0, 52.0, 32.0)], ignore_thresh=0.4)
    strict, _ = loss(raws, [(0, 0, 36.0, 16.0, 52.0, 32.0)], ignore_thresh=0.99)
    assert float(strict) - float(near) > 9


def test_the_normalisers_weigh_the_parts():
    truth = [(0, 0, 30.0, 16.0, 44.0, 30.0)]
    _, plain = loss(heads(), truth)
    _, weighed = loss(heads(), truth, iou_normalizer=10.0, obj_normalizer=2.0, cls_normalizer=3.0)
    assert float(weighed["box"]) == pytest.approx(10 * float(plain["box"]), rel=1e-4)
    assert float(weighed["obj"]) == pytest.approx(2 * float(plain["obj"]), rel=1e-4)
    assert float(weighed["cls"]) == pytest.approx(3 * float(plain["cls"]), rel=1e-4)


def test_gradients_reach_box_objectness_and_class():
    raws = [raw.requires_grad_() for raw in heads(-1.0)]
    total, _ = loss(raws, [(0, 0, 34.5, 15.0, 47.0, 34.0)])
    total.backward()
    assert torch.all(raws[1].grad[0, :, 1, 2].abs() > 0)


def test_the_gradient_on_a_box_is_cut_at_max_delta_and_that_on_a_score_is_not():
    truth = [(0, 0, 34.5, 15.0, 47.0, 34.0)]
    free, cut, scaled = ([raw.requires_grad_() for raw in heads(-4.0)] for _ in range(3))
    loss(free, truth, iou_normalizer=50.0)[0].backward()
    loss(cut, truth, iou_normalizer=50.0, max_delta=0.5)[0].backward()
    (loss(scaled, truth, 1024.0, iou_normalizer=50.0, max_delta=0.5)[0] * 1024).backward()
    assert torch.allclose(scaled[1].grad / 1024, cut[1].grad)
    assert free[1].grad[:, :4].abs().max() > 0.5
    assert torch.allclose(cut[1].grad[:, :4], free[1].grad[:, :4].clamp(-0.5, 0.5))
    assert torch.allclose(cut[1].grad[:, 4:], free[1].grad[:, 4:])


def test_two_lesions_on_one_prediction_share_it():
    truth = (0, 0, 32.0, 16.0, 48.0, 32.0)
    once, twice = loss(heads(), [truth])[1], loss(heads(), [truth, truth])[1]
    assert float(twice["box"]) == pytest.approx(float(once["box"]))
    assert float(twice["cls"]) == pytest.approx(float(once["cls"]))


def test_with_several_classes_the_right_one_is_cheap_and_a_wrong_one_dear():
    raw = torch.zeros(1, 8, 4, 4)
    raw[:, 4], raw[:, 5:] = -10.0, -10.0
    raw[0, 4, 1, 2], raw[0, 6, 1, 2] = 10.0, 10.0  # class 1
    head = facts(((16.0, 16.0),), 16, classes=3)
    costs = []
    for kind in (0, 1, 2):
        truth = torch.tensor([[0, kind, 32.0, 16.0, 48.0, 32.0]])
        costs.append(float(yolo_loss([raw], [head], truth, torch.zeros(0, 5))[1]["cls"]))
    assert costs[1] < 0.01 and costs[0] > 19 and costs[2] > 19
