"""The training loop, its checkpoints and the model directory it ends with, on a tiny scale."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")

from support.darknet import thinned  # noqa: E402

from derma_common.errors import ModelError, ResourceError, RunError  # noqa: E402
from derma_common.inference.detection import Detector  # noqa: E402
from derma_training.detector import checkpoint, start, train  # noqa: E402
from derma_training.detector.annotations import Decoded  # noqa: E402
from derma_training.detector.augment import Sample  # noqa: E402
from derma_training.detector.data import Data, DataSet, Feed, collate  # noqa: E402
from derma_training.detector.export import draft_card, export  # noqa: E402
from derma_training.detector.finish import finish, measure  # noqa: E402
from derma_training.detector.networks import network  # noqa: E402
from derma_training.detector.schedule import batch_at, rate_at, size_at  # noqa: E402
from derma_training.detector.torch_runner import TorchRunner  # noqa: E402
from derma_training.detector.train import TrainSettings  # noqa: E402
from derma_training.detector.yolo_loss import yolo_loss  # noqa: E402

pytestmark = pytest.mark.train

ANCHORS = [[(40.0, 40.0), (60.0, 60.0), (90.0, 90.0)], [(8.0, 8.0), (14.0, 14.0), (20.0, 20.0)]]
TINY = thinned(network("yolov4-tiny", 1, 96, 96, ANCHORS), 8)


@pytest.fixture(autouse=True)
def one_thread():
    """Keep torch to one thread: the networks are too small to share out, and tests run side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures():
    image = np.full((96, 96, 3), 170, np.uint8)
    image[30:60, 40:70] = 40
    box = np.asarray([[40, 30, 70, 60]], np.float32)
    parts = ("train", "train", "tune", "test")
    return tuple(
        Decoded(Path(f"{n}.jpg"), 96, 96, box, np.zeros(1, np.int64), source="discs", split=part, pixels=image)
        for n, part in enumerate(parts)
    )


DATA = Data((DataSet(pictures(), 1.0),), ("lesion",), ())
QUICK = TrainSettings(epochs=4, size=96, batch=4, epoch_images=16, burn_in=2)


def begin(config=TINY, settings=QUICK):
    return train.start(config, ("lesion",), settings)


def one_epoch(run, settings=QUICK):
    return train.train_one_epoch(run, Feed(DATA.part("train")), settings, lambda run, progress, loss: None)


def same_weights(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def cost(run):
    """Return the loss of the network in training on one picture as it is."""
    images, truths, ignored = collate([Sample(p.pixels, p.boxes, p.classes, p.ignored) for p in pictures()[:2]])
    with torch.no_grad():
        return float(yolo_loss(run.net(images), train.loss_heads(run.net, QUICK), truths, ignored)[0])


def test_training_lowers_the_loss_and_says_what_it_did():
    fast = replace(QUICK, peak_rate=6e-3)
    run = begin(settings=fast)
    before = cost(run)
    lines = [one_epoch(run, fast) for _ in range(4)]
    assert cost(run) < 0.8 * before
    assert run.epoch == 4 and run.images == lines[-1]["images"] and run.step == lines[-1]["step"]
    assert set(lines[0]) >= {"epoch", "rate", "size", "images_per_s", "box", "obj", "cls", "minutes"}


def test_the_same_seed_trains_the_same_network_however_many_threads_make_pictures():
    first, second = begin(), begin()
    one_epoch(first)
    one_epoch(second, replace(QUICK, workers=3))
    assert same_weights(first.net, second.net)


def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(tmp_path):
    whole, halved = begin(), begin()
    for run in (whole, halved):
        one_epoch(run)
    train.save(halved, tmp_path)
    again = train.resume(tmp_path / train.CHECKPOINT, QUICK, wanted=thinned(network("yolov4-tiny", 1, 96, 96), 8))
    assert [head.anchors for head in again.net.heads] == [tuple(head) for head in ANCHORS]
    one_epoch(whole)
    one_epoch(again)
    assert (again.step, again.images, again.epoch) == (whole.step, whole.images, whole.epoch)
    assert same_weights(again.averaged, whole.averaged)
    assert [path.name for path in tmp_path.iterdir()] == [train.CHECKPOINT]


@pytest.mark.parametrize("other", [("yolov4", 1, 96), ("yolov4-tiny", 2, 96), ("yolov4-tiny", 1, 128)])
def test_a_checkpoint_of_another_network_is_refused(tmp_path, other):
    train.save(begin(), tmp_path)
    name, classes, side = other
    with pytest.raises(ModelError, match="another network"):
        train.resume(tmp_path / train.CHECKPOINT, QUICK, wanted=thinned(network(name, classes, side, side), 8))


@pytest.mark.parametrize("damage", ["truncated", "garbage", "foreign", "incomplete", "missing"])
def test_a_damaged_or_foreign_checkpoint_is_one_clear_line(tmp_path, damage):
    file = tmp_path / train.CHECKPOINT
    train.save(begin(), tmp_path)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-5000])
    elif damage == "garbage":
        file.write_bytes(b"no checkpoint at all" * 50)
    elif damage == "foreign":
        torch.save({"model": {}, "epoch": 3}, file)
    elif damage == "incomplete":
        checkpoint.save({"cfg": TINY.text}, file)
    else:
        file.unlink()
    with pytest.raises(ModelError, match=r"checkpoint\.pt .*remove it to start anew") as caught:
        train.resume(file, QUICK)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_executes_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"format": 1, "net": Evil()}, tmp_path / train.CHECKPOINT)
    with pytest.raises(ModelError):
        train.resume(tmp_path / train.CHECKPOINT, QUICK)
    assert not (tmp_path / "executed").exists()


FULL_DISK = """
import resource, sys
from pathlib import Path
from derma_common.errors import ResourceError
from derma_training.detector import checkpoint
file = Path(sys.argv[1])
checkpoint.save({"step": 1}, file)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
import torch
try:
    checkpoint.save({"step": 2, "weights": torch.zeros(100_000)}, file)
except ResourceError as error:
    print(error)
print(checkpoint.load(file)["step"])
"""


def test_a_disk_that_fills_up_during_a_save_leaves_the_last_good_checkpoint(tmp_path):
    assert resource.RLIM_INFINITY in resource.getrlimit(resource.RLIMIT_FSIZE)
    file = tmp_path / train.CHECKPOINT
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(file)], capture_output=True, text=True, check=True)
    said, step = done.stdout.splitlines()
    assert "cannot be written: File too large; the last good one is kept" in said and step == "1"
    assert [path.name for path in tmp_path.iterdir()] == [train.CHECKPOINT]


def test_a_log_that_cannot_be_written_is_a_clear_error(tmp_path, capsys):
    (tmp_path / train.LOG).mkdir()
    with pytest.raises(ResourceError, match="the checkpoint is kept"):
        train.log_epoch({"epoch": 1}, tmp_path)
    assert json.loads(capsys.readouterr().out) == {"epoch": 1}


def test_a_loss_that_is_no_number_stops_the_run_before_its_checkpoint():
    run = begin()
    with torch.no_grad():
        run.net.head_units()[0].conv.bias.fill_(math.nan)
    with pytest.raises(RunError, match="lower --rate"):
        one_epoch(run)
    assert run.epoch == 0


def test_the_budget_is_epochs_or_minutes():
    run = begin()
    run.epoch, run.elapsed_s = 3, 90.0
    assert run.progress(QUICK) == 0.75 and run.progress(QUICK, 0.5) == 0.875
    assert run.progress(replace(QUICK, epochs=None, minutes=2.0)) == 0.75
    run.elapsed_s = 1e6
    assert run.progress(replace(QUICK, epochs=None, minutes=2.0)) == 1.0


def test_the_rate_burns_in_and_falls_as_a_cosine_or_in_steps():
    assert rate_at(0.0, 49, 1.0, 100) == pytest.approx(0.5**4)
    assert rate_at(0.05, 0, 1.0, 10**6) == pytest.approx(rate_at(0.05, 10**6, 1.0, 1))
    assert rate_at(0.5, 1000, 1.0, 100) == pytest.approx(0.505)
    assert rate_at(1.0, 1000, 1.0, 100) == pytest.approx(0.01)
    steps = [rate_at(p, 1000, 1.0, 100, "steps") for p in (0.5, 0.79, 0.85, 0.95)]
    assert steps == pytest.approx([1.0, 1.0, 0.1, 0.01])


def test_sizes_are_whole_cells_around_a_growing_middle_and_end_at_the_final_one():
    rng = np.random.default_rng(0)
    early, late, last = ({size_at(p, rng, 416) for _ in range(300)} for p in (0.0, 0.7, 0.9))
    assert last == {416} and all(side % 32 == 0 for side in early | late)
    assert min(early) >= 0.6 * 416 / 1.4 - 16 and max(late) <= 1.4 * 416 + 16
    assert np.mean(list(early)) < np.mean(list(late))
    assert batch_at(416, 416, 16) == 16 and batch_at(208, 416, 16) == 32 and 8 <= batch_at(576, 416, 16) < 16


def test_the_loss_takes_the_cfgs_facts_where_the_settings_leave_them():
    run = begin()
    assert {head.yolo.iou_normalizer for head in train.loss_heads(run.net, QUICK)} == {1.0}
    own = replace(QUICK, iou_normalizer=None, iou_thresh=None)
    assert train.loss_heads(run.net, own) == list(run.net.heads)


def test_a_network_in_training_is_measured_as_the_service_runs_it(tmp_path):
    run = begin()
    card = export(run.averaged, tmp_path, draft_card("tiny", run.averaged, 96, 96, ("lesion",), "CC0"))
    image = pictures()[0].pixels
    exported = Detector.open(tmp_path).detect(image, score_threshold=0.0)
    with TorchRunner(run.averaged, torch.device("cpu")) as runner:
        own = Detector(card, runner).detect(image, score_threshold=0.0)
    assert own.scores == pytest.approx(exported.scores, abs=1e-4)
    assert set(measure(run, DATA, "tiny")) >= {"ap50", "recall", "fp_per_image"}


def test_a_run_ends_with_a_model_directory_that_the_service_opens(tmp_path):
    pytest.importorskip("matplotlib", reason="plots need the bench extra")
    run = begin()
    line = one_epoch(run) | {"tune": measure(run, DATA, "tiny")}
    train.log_epoch(line, tmp_path)
    card = finish(run, DATA, tmp_path, "CC BY 4.0")
    assert card.licence == "CC BY 4.0" and card.classes == ("lesion",) and card.input.width == 96
    assert card.training_data == ("discs: 2 pictures",)
    assert card.figures["held_out"]["n_images"] == 1 and "intervals" in card.figures["held_out"]
    assert card.figures["anchors"] and card.figures["onnx_parity_max_abs_difference"] <= 1e-4
    Detector.open(tmp_path).close()
    assert {path.name for path in tmp_path.iterdir()} >= {"losses.png", "pr_curve.png", "model.onnx", "card.json"}


def test_a_folded_models_statistics_are_measured_and_its_outputs_kept(tmp_path):
    settings = replace(QUICK, epochs=1)
    trained = begin(settings=settings)
    one_epoch(trained, settings)
    card = draft_card("tiny", trained.averaged, 96, 96, ("lesion",), "CC0")
    export(trained.averaged, tmp_path, card)
    assert start.anchors_beside(tmp_path / "model.onnx") == ANCHORS
    run = begin()
    said = start.begin_from(run, tmp_path / "model.onnx", Feed(DATA.part("train")), QUICK)
    assert "convolutions from" in said and same_weights(run.net, run.averaged)
    image = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for raw, wanted in zip(run.averaged(image), trained.averaged(image), strict=True):
            assert torch.allclose(raw, wanted, atol=1e-3)
    means = [unit.norm.running_mean.abs().max() for unit in run.net.conv_units() if hasattr(unit.norm, "running_mean")]
    assert min(means) > 0


def test_anchors_of_a_damaged_card_are_refused_and_other_files_have_none(tmp_path):
    run = begin()
    card = draft_card("tiny", run.averaged, 96, 96, ("lesion",), "CC0")
    export(run.averaged, tmp_path, card)
    raw = json.loads((tmp_path / "card.json").read_text())
    raw["figures"]["anchors"] = [[3]]
    (tmp_path / "card.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError, match="anchors"):
        start.anchors_beside(tmp_path / "model.onnx")
    assert start.anchors_beside(tmp_path / "yolov4-tiny.conv.29") is None
