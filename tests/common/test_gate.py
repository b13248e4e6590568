"""An engine may serve when it says of pictures what its network says; here converted and broken networks play it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from derma_common.boxes import iou
from derma_common.errors import SourceError
from derma_common.inference.card import read_card
from derma_common.inference.examples import Example, examples, identity
from derma_common.inference.fake import fake_classifier, fake_detector
from derma_common.inference.gate import judge
from derma_common.inference.onnx import OnnxRunner
from derma_common.inference.opening import open_runner
from derma_common.inference.precision import converted
from derma_common.shipped import shipped

DETECTOR, CLASSIFIER = "yolov4-tiny-mole", "efficientnet-b0-skin"


@pytest.fixture(scope="module")
def sample():
    return examples(None)


@pytest.fixture(scope="module")
def pictures(sample):
    return sample[4::12]


class Altered:
    """A runner whose outputs are changed on their way: an engine with something wrong in it."""

    name = "altered"

    def __init__(self, runner, change):
        self._runner, self._change = runner, change

    def infer(self, inputs):
        return self._change(self._runner.infer(inputs))

    def close(self):
        self._runner.close()


@pytest.fixture(scope="module")
def networks(sample):
    """Give a shipped model's card and its runner; the runner of the same network in another precision."""
    opened = {}

    def give(name, precision="fp32"):
        if (name, precision) not in opened:
            folder = shipped("models") / name
            card = read_card(folder)
            images = (picture.image for picture in sample[1::16])
            opened[name, precision] = card, OnnxRunner(card, converted(folder / card.file, card, precision, images), 1)
        return opened[name, precision]

    yield give
    for _, runner in opened.values():
        runner.close()


def outcome(networks, pictures, name, precision, change=None):
    pytest.importorskip("onnx")
    card, reference = networks(name)
    _, candidate = networks(name, precision)
    if change:
        candidate = Altered(candidate, change)
    return judge(card, reference, candidate, precision, pictures)


@pytest.mark.parametrize("name", [DETECTOR, CLASSIFIER])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_faithful_conversion_passes(networks, pictures, name, precision):
    verdict = outcome(networks, pictures, name, precision)
    assert verdict.passed, verdict.reasons
    assert verdict.figures["compared"] > 10


def test_the_detector_in_int8_passes_and_keeps_its_accuracy(networks, pictures):
    verdict = outcome(networks, pictures, DETECTOR, "int8")
    assert verdict.passed, verdict.reasons
    assert verdict.figures["f1_reference"] > 0.8
    assert verdict.figures["f1"] > 0.8


def shifted(outputs):
    return outputs | {"boxes": outputs["boxes"] + 4}


def louder(outputs):
    return outputs | {"scores": np.minimum(1, outputs["scores"] * 1.1)}


def blind(outputs):
    return outputs | {"scores": outputs["scores"] * 0}


def seeing_things(outputs):
    scores = outputs["scores"].copy()
    scores[:, 100:140] = 0.9
    return outputs | {"scores": scores}


def not_a_number(outputs):
    return {name: array * np.float32(np.nan) for name, array in outputs.items()}


def mixed_up(outputs):
    return outputs | {"logits": np.roll(outputs["logits"], 1, axis=1)}


def flatter(outputs):
    return outputs | {"logits": outputs["logits"] * 0.7}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("change", [shifted, blind, seeing_things, not_a_number])
def test_a_broken_detector_is_refused(networks, pictures, precision, change):
    verdict = outcome(networks, pictures, DETECTOR, precision, change)
    assert not verdict.passed
    assert verdict.reasons


def test_a_detector_that_is_surer_of_itself_is_refused_in_fp16(networks, pictures):
    verdict = outcome(networks, pictures, DETECTOR, "fp16", louder)
    assert any(reason.startswith("scores differ by") for reason in verdict.reasons)


@pytest.mark.parametrize("change", [mixed_up, flatter, not_a_number])
def test_a_broken_classifier_is_refused(networks, pictures, change):
    verdict = outcome(networks, pictures, CLASSIFIER, "fp16", change)
    assert not verdict.passed
    assert verdict.reasons


def test_pictures_in_which_nothing_is_found_judge_nobody(networks):
    empty = [Example(np.zeros((96, 96, 3), np.uint8), None)]
    verdict = outcome(networks, empty, DETECTOR, "fp16")
    assert verdict.reasons == ("there is nothing to compare: the network finds nothing in these pictures",)


def test_the_figures_are_those_of_the_definition(tmp_path):
    """Two fakes whose boxes and scores are known: what the gate measures can be told by hand."""
    boxes = [[100.0, 100.0, 200.0, 200.0]]
    card, first = open_runner(fake_detector(tmp_path / "a", boxes=boxes, scores=[[0.9]]), "detector", 1)
    moved = [[100.0, 100.0, 200.0, 190.0]]
    _, second = open_runner(fake_detector(tmp_path / "b", boxes=moved, scores=[[0.84]]), "detector", 1)
    picture = Example(np.zeros((416, 416, 3), np.uint8), np.asarray(boxes, np.float32))
    verdict = judge(card, first, second, "int8", [picture] * 3)
    overlap = float(iou(np.asarray(boxes, np.float32), np.asarray(moved, np.float32))[0, 0])
    assert verdict.figures["iou"] == pytest.approx(overlap) == pytest.approx(0.9)
    assert verdict.figures["difference"] == pytest.approx(0.06)
    assert verdict.figures["unmatched"] == 0
    assert verdict.figures["f1"] == verdict.figures["f1_reference"] == 1
    assert verdict.figures["lost"] == 0
    assert verdict.passed
    assert not judge(card, first, second, "fp16", [picture] * 3).passed


def test_a_near_tie_may_fall_either_way_and_a_clear_choice_may_not(tmp_path):
    card, first = open_runner(fake_classifier(tmp_path / "a", logits=[1.0, 1.01, 0.0]), "classifier", 1)
    _, tie = open_runner(fake_classifier(tmp_path / "b", logits=[1.01, 1.0, 0.0]), "classifier", 1)
    _, clear = open_runner(fake_classifier(tmp_path / "c", logits=[1.6, 1.0, 0.0]), "classifier", 1)
    picture = Example(np.zeros((64, 64, 3), np.uint8), None)
    assert judge(card, first, tie, "fp16", [picture]).passed
    verdict = judge(replace(card, temperature=1.0), first, clear, "fp16", [picture])
    assert not verdict.passed


def test_a_folder_of_pictures_is_read_and_told_from_others(tmp_path):
    for i in range(3):
        assert cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((60, 80, 3), 10 * i, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    found = examples(tmp_path)
    assert [picture.image.shape for picture in found] == [(60, 80, 3)] * 3
    assert found[0].boxes is None
    before = identity(tmp_path)
    (tmp_path / "2.png").unlink()
    assert identity(tmp_path) != before
    assert identity(None) == "sample"


@pytest.mark.parametrize("what", ["none", "empty"])
def test_a_folder_without_pictures_is_one_line(tmp_path, what):
    with pytest.raises(SourceError) as caught:
        examples(tmp_path if what == "empty" else tmp_path / "missing")
    assert "\n" not in str(caught.value)


def test_the_sample_has_its_boxes(sample):
    assert len(sample) == 48
    assert sum(len(picture.squares) for picture in sample) > 100
