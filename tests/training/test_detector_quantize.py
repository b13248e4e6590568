"""The int8 build: what stays in float, that it finds what fp32 finds, and how that is measured."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
onnx = pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")

from support.darknet import random_network, thinned  # noqa: E402

from derma_common.errors import ConfigError, ModelError, SourceError  # noqa: E402
from derma_common.inference.card import read_card  # noqa: E402
from derma_common.inference.detection import Detections, Detector  # noqa: E402
from derma_common.inference.fake import fake_detector  # noqa: E402
from derma_training.detector.annotations import Annotated, Decoded  # noqa: E402
from derma_training.detector.commands import quantize as command  # noqa: E402
from derma_training.detector.evaluate import Seen  # noqa: E402
from derma_training.detector.export import draft_card, export  # noqa: E402
from derma_training.detector.networks import network  # noqa: E402
from derma_training.detector.quantize import quantize  # noqa: E402
from derma_training.detector.quantize_judge import agreement, ap50  # noqa: E402

pytestmark = pytest.mark.train


def images(count, seed=0):
    rng = np.random.default_rng(seed)
    return [cv2.resize(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), (96, 64)) for _ in range(count)]


@pytest.fixture(scope="module")
def fp32(tmp_path_factory):
    """An exported thin YOLOv4-tiny with random weights."""
    directory = tmp_path_factory.mktemp("models") / "thin"
    net = random_network(thinned(network("yolov4-tiny", 1, 64, 64), 4))
    export(net, directory, draft_card("thin", net, 64, 64, ("lesion",), "none"))
    return directory


@pytest.fixture(scope="module")
def int8(fp32):
    quantize(fp32, images(8), fp32.parent / "thin-int8")
    return fp32.parent / "thin-int8"


def test_all_convolutions_but_the_heads_last_ones_are_int8(int8):
    graph = onnx.load(str(int8 / "model.onnx")).graph
    scaled = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    in_float = [node.name for node in convolutions if node.input[1] not in scaled]
    assert len(convolutions) == 21 and len(in_float) == 2
    assert all("layers.29/" in name or "layers.36/" in name for name in in_float)
    decode = [node for node in graph.node if node.op_type in ("Sigmoid", "Exp", "Clip", "Mul", "Reshape", "Transpose")]
    assert decode and not any(set(node.input) & scaled for node in decode)


def test_int8_computes_nearly_what_fp32_computes(fp32, int8):
    exact, rounded = Detector.open(fp32), Detector.open(int8)
    for image in images(4, seed=1):
        wanted, found = (d.detect(image, score_threshold=0.0, iou_threshold=1.0) for d in (exact, rounded))
        assert len(found) == len(wanted) > 0
        assert np.abs(np.sort(found.scores) - np.sort(wanted.scores)).max() < 0.05
    exact.close()
    rounded.close()


def test_the_card_says_what_it_was_made_from_and_quotes_no_figure_of_fp32(fp32, int8):
    before, after = read_card(fp32), read_card(int8)
    assert after.figures == {"quantised_from": before.id, "calibration_pictures": 8}
    assert after.name == "thin-int8" and after.architecture.endswith("int8") and "int8" in after.notes[-1]
    assert (after.input, after.classes, after.licence) == (before.input, before.classes, before.licence)
    assert (int8 / "model.onnx").stat().st_size < 0.5 * (fp32 / "model.onnx").stat().st_size


def test_what_cannot_be_quantised_is_refused(fp32, int8, tmp_path):
    with pytest.raises(ModelError, match="is an int8 model already"):
        quantize(int8, images(1), tmp_path / "twice")
    with pytest.raises(ConfigError, match="holds the fp32 model"):
        quantize(fp32, images(1), fp32)
    fake_detector(tmp_path / "fake")
    with pytest.raises(ModelError, match="an ONNX detector is needed"):
        quantize(tmp_path / "fake", images(1), tmp_path / "out")


def found(*rows):
    boxes = np.asarray([row[:4] for row in rows], np.float32).reshape(-1, 4)
    return Detections(boxes, np.asarray([row[4] for row in rows], np.float32))


def test_agreement_counts_lost_and_new_boxes_and_their_differences():
    first = found((0, 0, 10, 10, 0.9), (20, 20, 30, 30, 0.5), (40, 40, 50, 50, 0.3), (60, 60, 70, 70, 0.1))
    second = found((0, 0, 10, 8, 0.8), (40, 40, 50, 50, 0.2), (60, 60, 70, 70, 0.4))
    report = agreement([(first, second), (found(), found())], 0.25)
    assert (report["n_images"], report["boxes"], report["lost"], report["new"]) == (2, 3, 2, 1)
    assert report["score_difference"]["mean"] == pytest.approx(0.1) == report["score_difference"]["worst"]
    assert report["iou"]["worst"] == 0.8 and report["iou"]["mean"] == pytest.approx(0.9)
    assert agreement([(found(), found())], 0.25)["score_difference"] is None


def seen(boxes, detections, group):
    pixels = np.zeros((100, 100, 3), np.uint8)
    truth = np.asarray(boxes, np.float32).reshape(-1, 4)
    return Seen(Decoded("p", 100, 100, truth, group=group, pixels=pixels), detections, 0, 0.0)


def test_ap50_is_compared_pair_by_pair():
    hit, miss = found((0, 0, 10, 10, 0.9)), found((50, 50, 60, 60, 0.9))
    truth = [(0, 0, 10, 10)]
    before = [seen(truth, hit, f"patient{n}") for n in range(20)]
    same = ap50(before, before, samples=50)
    assert same["fp32"] == same["int8"] == {"value": 1.0, "interval_95": [1.0, 1.0]}
    assert same["difference"] == {"value": 0.0, "interval_95": [0.0, 0.0]}
    after = [*before[:10], *(seen(truth, miss, f"patient{n}") for n in range(10, 20))]
    worse = ap50(before, after, samples=200)
    low, high = worse["difference"]["interval_95"]
    assert low < worse["difference"]["value"] < high < 0
    assert worse["fp32"]["value"] + worse["difference"]["value"] == pytest.approx(worse["int8"]["value"])


def annotated(name, source, split="", group=""):
    return Annotated(name, 10, 10, source=source, split=split, group=group)


def test_pictures_to_calibrate_on_share_no_patient_with_those_to_measure_on():
    known = [annotated(f"a{n}", "known", "train" if n < 500 else "val") for n in range(600)]
    grouped = [annotated(f"b{n}", "grouped", group=f"patient{n // 4}") for n in range(40)]
    chosen, rest = command.split([*known, *grouped], seed=3)
    assert {picture.split for picture in chosen if picture.source == "known"} == {"train"}
    assert {picture.split for picture in rest if picture.source == "known"} == {"val"}
    assert sum(picture.source == "known" for picture in chosen) == command.CALIBRATION_PICTURES / 2
    assert sum(picture.source == "grouped" for picture in chosen) == 20
    assert not {picture.group for picture in chosen if picture.group} & {picture.group for picture in rest}
    with pytest.raises(SourceError, match="give more"):
        command.split([annotated("one", "alone")], 0)


def test_the_command_writes_a_model_with_its_agreement(fp32, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    for n, image in enumerate(images(6)):
        cv2.imwrite(str(data / f"{n}.png"), image)
        (data / f"{n}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    arguments = ["--model", str(fp32), "--data", str(data), "--out", str(tmp_path / "int8")]
    command.main([*arguments, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["calibration_pictures"] == 3 and report["agreement"]["n_images"] == 3
    assert set(report["ap50"]) == {"fp32", "int8", "difference"}
    assert report["model"] == read_card(tmp_path / "int8").id
    command.main(arguments)
    text = capsys.readouterr().out
    assert "calibrated on 3 pictures" in text and "AP50 difference" in text
