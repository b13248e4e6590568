"""`derma train detector`: from folders to a model directory, and one clear line for what a user can mend."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")

from support.darknet import thinned  # noqa: E402

from derma_common.inference.card import read_card  # noqa: E402
from derma_common.inference.detection import Detector  # noqa: E402
from derma_training.detector import checkpoint, session  # noqa: E402
from derma_training.detector.__main__ import main  # noqa: E402
from derma_training.detector.annotations import read_annotations  # noqa: E402
from derma_training.detector.commands import retrain  # noqa: E402
from derma_training.detector.networks import network  # noqa: E402

pytestmark = pytest.mark.train
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture
def folder(tmp_path):
    """Give a folder of drawn scenes, a small network's cfg, and the arguments that train it for a moment."""
    assert main(["draw", "--out", str(tmp_path / "moles"), "--n", "14", "--width", "160", "--height", "128"]) == 0
    (tmp_path / "small.cfg").write_text(thinned(network("yolov4-tiny"), 16).text)
    return tmp_path


def arguments(folder, epochs=1, **other):
    given = {"data": folder / "moles", "out": folder / "model", "network": folder / "small.cfg", "size": 96}
    given |= {"epochs": epochs, "batch": 4, "threads": 1, "workers": 1} | other
    return ["train", *(word for name, value in given.items() for word in (f"--{name}", str(value)))]


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_folder_becomes_a_model_and_the_same_command_goes_on(folder, capsys):
    assert main(arguments(folder, licence="CC0")) == 0
    said = last_line(capsys)
    card = read_card(folder / "model")
    assert said["model"] == card.id and said["held_out"]["n_images"] == 2
    assert card.licence == "CC0" and card.training_data == ("moles: 10 pictures",)
    Detector.open(folder / "model").close()

    assert main(arguments(folder, epochs=3)) == 0
    heard = capsys.readouterr()
    assert "going on after" in heard.err
    lines = [json.loads(line) for line in (folder / "model" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert all(set(line) >= {"box", "obj", "cls", "rate"} for line in lines)


def test_a_finished_model_is_trained_on_with_its_anchors_and_exported_in_another_size(folder, capsys):
    assert main(arguments(folder)) == 0
    weights = folder / "model" / "model.onnx"
    assert main(arguments(folder, out=folder / "second", weights=weights)) == 0
    assert "starting from all" in capsys.readouterr().err
    first, second = (read_card(folder / name).figures["anchors"] for name in ("model", "second"))
    assert first == second
    assert main(["export", str(folder / "second"), str(folder / "wide"), "--size", "128", "--max-batch", "4"]) == 0
    card = read_card(folder / "wide")
    assert (card.input.width, card.input.max_batch) == (128, 4) and last_line(capsys)["model"] == card.id


@pytest.mark.parametrize(
    ("wrong", "status", "said"),
    [
        ({"size": 100}, 2, "--size 100"),
        ({"batch": 0}, 2, "--batch 0: must be positive"),
        pytest.param({"device": "cuda"}, 2, "no CUDA device here", marks=NO_GPU),
        ({"network": "yolov9"}, 2, "yolov9"),
        ({"data": "nowhere"}, 3, "nowhere"),
        ({"weights": "missing.weights"}, 4, "missing.weights"),
        ({"network": "missing.cfg"}, 4, "missing.cfg"),
        ({"out": "/proc/model"}, 5, "/proc/model"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_an_exit_status(folder, capsys, wrong, status, said):
    assert main(arguments(folder, **wrong)) == status
    heard = capsys.readouterr().err.splitlines()
    assert heard[-1].startswith("derma: ") and said in heard[-1]


def test_a_checkpoint_of_another_network_is_refused_and_left_alone(folder, capsys):
    assert main(arguments(folder)) == 0
    before = (folder / "model" / "checkpoint.pt").read_bytes()
    assert main(arguments(folder, size=128)) == 4
    assert "is of another network" in capsys.readouterr().err
    assert (folder / "model" / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("text", ["[net]\nwidth=96\nheight=96\nchannels=3\n\n[teleport]\nsize=3\n", "no cfg"])
def test_a_cfg_that_cannot_be_built_is_refused(folder, capsys, text):
    (folder / "wrong.cfg").write_text(text)
    assert main(arguments(folder, network=folder / "wrong.cfg")) == 4
    assert "wrong.cfg" in capsys.readouterr().err


def test_the_shipped_recipe_trains_on_the_train_parts_and_the_scenes(folder, monkeypatch, capsys):
    asked = []

    def source(name):
        def pictures(data, part):
            asked.append((name, part))
            found = read_annotations(folder / "moles").pictures
            return {"train": found[:8], "tune": found[8:10], "test": found[10:]}[part]

        return pictures

    monkeypatch.setattr(retrain, "SOURCES", {name: source(name) for name in retrain.SHARES})
    seen = []
    monkeypatch.setattr(session, "train_to_end", lambda run, data, settings, out: seen.append(data))
    scenes = str(folder / "moles")
    words = ["retrain", str(folder), str(folder / "out"), "--scenes", scenes, "--minutes", "1", "--size", "96"]
    assert main(words) == 0
    assert last_line(capsys)["model"].startswith("out@")
    assert read_card(folder / "out").training_data == retrain.TRAINING_DATA
    (data,) = seen
    counts = {part: len(data.part(part).pictures) for part in ("train", "tune", "test")}
    assert counts == {"train": 5 * 8 + 14, "tune": 5 * 2, "test": 5 * 4}
    assert sum(one.share for one in data.sets) == pytest.approx(0.69 + 0.26)
    assert sorted(set(asked)) == sorted((name, part) for name in retrain.SHARES for part in counts)


@pytest.mark.slow
def test_a_killed_training_goes_on_after_its_last_whole_epoch(folder, capsys):
    command = [sys.executable, "-m", "derma_training.detector", *arguments(folder, epochs=500)]
    log = folder / "model" / "log.jsonl"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 120
        while not (log.exists() and log.read_text().count("\n") >= 3):
            assert time.monotonic() < deadline and running.poll() is None
            time.sleep(0.02)
        running.kill()
    saved = checkpoint.load(folder / "model" / "checkpoint.pt")["epoch"]
    assert saved >= 3
    assert main(arguments(folder, epochs=saved + 1)) == 0
    assert "going on after" in capsys.readouterr().err
    assert json.loads(log.read_text().splitlines()[-1])["epoch"] == saved + 1


def test_a_place_that_fills_up_at_the_end_is_one_line_and_the_same_command_ends_it(folder, capsys):
    pytest.importorskip("matplotlib", reason="plots need the bench extra")
    blocked = folder / "model" / "losses.png"
    blocked.mkdir(parents=True)
    assert main(arguments(folder)) == 5
    assert "cannot be written" in capsys.readouterr().err.splitlines()[-1]
    blocked.rmdir()
    assert main(arguments(folder)) == 0
    assert "going on after" in capsys.readouterr().err and blocked.is_file()


def test_a_gpu_that_is_too_small_is_one_line(folder, monkeypatch, capsys):
    def burst(*_):
        raise torch.OutOfMemoryError("tried to allocate 2.00 GiB")

    monkeypatch.setattr(session, "train_to_end", burst)
    assert main(arguments(folder)) == 5
    assert "smaller --batch" in capsys.readouterr().err.splitlines()[-1]
