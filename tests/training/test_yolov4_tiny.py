"""YOLOv4-tiny: as large as Darknet's, shaped like it."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")

from derma_training.detector.yolov4_tiny import CspStage, YoloV4Tiny, parameter_count  # noqa: E402

pytestmark = pytest.mark.train


@pytest.mark.parametrize(("classes", "parameters"), [(1, 5_874_116), (80, 6_056_606)])
def test_it_has_darknets_number_of_parameters(classes, parameters):
    assert parameter_count(YoloV4Tiny(classes)) == parameters


def test_the_heads_have_strides_32_and_16_for_any_input_of_whole_cells():
    coarse, fine = YoloV4Tiny(3).eval()(torch.zeros(2, 3, 64, 96))
    assert coarse.shape == (2, 24, 2, 3) and fine.shape == (2, 24, 4, 6)


def test_a_stage_sends_only_the_second_half_of_its_channels_through_the_inner_convolutions():
    stage = CspStage(8).eval()
    seen = []
    stage.first.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    x = torch.rand(1, 8, 4, 4)
    out, joined = stage(x)
    assert torch.equal(seen[0], stage.entry(x)[:, 4:])
    assert out.shape == (1, 16, 4, 4) and torch.equal(out[:, 8:], joined)
