"""From a fresh network to a model directory that the service opens, on a tiny scale."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")

from derma_common.errors import ModelError  # noqa: E402
from derma_common.inference.card import read_card  # noqa: E402
from derma_common.inference.detection import Detector  # noqa: E402
from derma_training.detector import export as detector_export  # noqa: E402
from derma_training.detector import train as detector_train  # noqa: E402
from derma_training.detector.sources import NONE, Picture  # noqa: E402
from derma_training.detector.train import TrainSettings, rate_at, size_at  # noqa: E402

pytestmark = pytest.mark.train

ANCHORS = [[(40.0, 40.0), (60.0, 60.0), (90.0, 90.0)], [(8.0, 8.0), (14.0, 14.0), (20.0, 20.0)]]


def pools():
    image = np.full((96, 96, 3), 170, np.uint8)
    image[30:60, 40:70] = 40
    return {"drawn": [Picture(image, np.asarray([[40, 30, 70, 60]], np.float32), NONE, "drawn")]}


@pytest.fixture
def quick():
    return TrainSettings(minutes=1.0, size=96, epoch_images=40, burn_in=2)


def test_a_few_steps_lower_the_loss(quick):
    run = detector_train.start(ANCHORS, quick)
    first = detector_train.train_one_epoch(run, pools(), quick)
    for _ in range(3):
        last = detector_train.train_one_epoch(run, pools(), quick)
    assert last["obj"] < first["obj"]
    assert run.images == 4 * 48 and run.step == 8


def test_a_resumed_run_goes_on_where_the_checkpoint_is(quick, tmp_path):
    run = detector_train.start(ANCHORS, quick)
    detector_train.train_one_epoch(run, pools(), quick)
    detector_train.save(run, tmp_path)
    again = detector_train.resume(tmp_path, quick)
    assert (again.step, again.images, again.elapsed_s) == (run.step, run.images, run.elapsed_s)
    assert [[tuple(p) for p in head] for head in again.anchors] == ANCHORS
    for kept, new in zip(run.averaged.state_dict().values(), again.averaged.state_dict().values(), strict=True):
        assert torch.equal(kept, new)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_training_ends_with_its_budget_and_logs_a_line_of_json_per_epoch(quick, tmp_path, capsys):
    run = detector_train.start(ANCHORS, quick)
    run.elapsed_s = 59.99
    detector_train.train(run, pools, quick, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 1 and lines[0]["pool"] == 1
    assert json.loads(capsys.readouterr().out) == lines[0]


def test_the_rate_burns_in_then_falls_to_a_hundredth_and_sizes_grow_to_the_final_one():
    settings = TrainSettings(minutes=10, burn_in=100, peak_rate=1.0)
    assert rate_at(0.0, 49, settings) == pytest.approx(0.25)
    assert rate_at(0.5, 1000, settings) == pytest.approx(0.505)
    assert rate_at(1.0, 1000, settings) == pytest.approx(0.01)
    rng, final = np.random.default_rng(0), {384, 416, 448}
    sides = [{size_at(p, rng, 416)[0] for _ in range(200)} for p in (0.1, 0.7, 0.95)]
    assert sides == [{192, 224, 256} | final, {288, 320, 352} | final, final]


def test_an_exported_network_is_opened_by_the_services_own_detector(quick, tmp_path):
    run = detector_train.start(ANCHORS, quick)
    card = detector_export.draft_card("tiny", 96, ("lesion",), "Apache-2.0")
    written = detector_export.export(run.averaged, ANCHORS, 96, tmp_path, card)
    assert written == read_card(tmp_path)
    assert written.figures["onnx_parity_max_abs_difference"] <= 1e-4
    detector = Detector.open(tmp_path)
    found = detector.detect(pools()["drawn"][0].image, score_threshold=0.0)
    detector.close()
    assert len(found) > 0 and found.boxes.shape == (len(found), 4)


def test_a_file_that_differs_from_the_network_is_not_kept(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(detector_export, "parity", lambda graph, file, size: 0.5)
    card = detector_export.draft_card("tiny", 96, ("lesion",), "Apache-2.0")
    with pytest.raises(ModelError, match="differs from the trained network"):
        detector_export.export(detector_train.start(ANCHORS, quick).averaged, ANCHORS, 96, tmp_path, card)
    assert not (tmp_path / "model.onnx").exists() and not (tmp_path / "card.json").exists()
