"""From a network to a model directory that the service opens."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
onnx = pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")

from support.darknet import random_network, thinned  # noqa: E402

from derma_common.errors import ModelError, ResourceError  # noqa: E402
from derma_common.inference.card import read_card  # noqa: E402
from derma_common.inference.detection import Detector  # noqa: E402
from derma_common.inference.onnx import run_file  # noqa: E402
from derma_training.detector import export as detector_export  # noqa: E402
from derma_training.detector.export import draft_card, export  # noqa: E402
from derma_training.detector.networks import network  # noqa: E402
from derma_training.detector.yolo_head import DetectorGraph  # noqa: E402

pytestmark = pytest.mark.train


def net_and_card(name="yolov4-tiny", width=96, height=64, max_batch=1):
    net = random_network(thinned(network(name, 2, 64, 64), 8))
    return net, draft_card("thin", net, width, height, ("mole", "other"), "none", max_batch)


@pytest.mark.parametrize(
    ("name", "max_batch"),
    [("yolov4-tiny", 1), ("yolov4-tiny", 4), pytest.param("yolov4", 4, marks=pytest.mark.slow)],
)
def test_the_file_computes_what_the_network_computes(tmp_path, name, max_batch):
    net, card = net_and_card(name, max_batch=max_batch)
    written = export(net, tmp_path, card)
    assert written == read_card(tmp_path)
    assert written.figures["onnx_parity_max_abs_difference"] <= 1e-4
    assert_same(net, tmp_path / "model.onnx", max_batch)


def assert_same(net, file, count):
    image = np.random.default_rng(1).random((count, 3, 64, 96), dtype=np.float32)
    found = run_file(file, {"image": image})
    with torch.no_grad():
        boxes, scores = DetectorGraph(net)(torch.from_numpy(image))
    np.testing.assert_allclose(found["boxes"], boxes.numpy(), atol=1e-4 * 96, rtol=1e-4)
    np.testing.assert_allclose(found["scores"], scores.numpy(), atol=1e-4)


def test_yolov4_has_mish_in_its_cheap_form_and_normalisation_folded(tmp_path):
    net, card = net_and_card("yolov4")
    export(net, tmp_path, card)
    assert_same(net, tmp_path / "model.onnx", 1)
    operators = {node.op_type for node in onnx.load(str(tmp_path / "model.onnx")).graph.node}
    assert not operators & {"Tanh", "Softplus", "Mish", "BatchNormalization"}


def test_the_services_own_detector_opens_it_and_the_card_has_the_anchors(tmp_path):
    net, card = net_and_card(width=64)
    written = export(net, tmp_path, card)
    assert written.figures["anchors"] == [[list(pair) for pair in head.anchors] for head in net.heads]
    detector = Detector.open(tmp_path)
    found = detector.detect(np.full((50, 80, 3), 90, np.uint8), score_threshold=0.0)
    detector.close()
    assert len(found) > 0 and found.boxes.shape == (len(found), 4)


def test_a_file_that_differs_from_the_network_is_not_kept(tmp_path, monkeypatch):
    net, card = net_and_card()
    monkeypatch.setattr(detector_export, "parity", lambda graph, file, spec: 0.5)
    with pytest.raises(ModelError, match="differs from the trained network"):
        export(net, tmp_path, card)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    net, card = net_and_card()
    with pytest.raises(ResourceError, match="file cannot be written: File exists"):
        export(net, tmp_path / "file", card)


def test_a_size_or_names_that_do_not_fit_the_network_are_refused(tmp_path):
    net, card = net_and_card(width=100)
    with pytest.raises(ModelError, match="100x64 px does not fit: both sides are multiples of 32"):
        export(net, tmp_path, card)
    with pytest.raises(ModelError, match="2 classes apart, there are 1 names: mole"):
        draft_card("thin", net, 64, 64, ("mole",), "none")
