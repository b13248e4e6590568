"""What runs the networks is settled before a run's services start."""

from __future__ import annotations

from dataclasses import replace

import pytest

from derma_cli import runners
from derma_cli.runners import settled
from derma_common.errors import ResourceError
from derma_common.inference.card import read_card
from derma_common.inference.fake import fake_detector
from derma_common.inference.probe import Gpu, Report
from derma_common.settings import ClassifierSettings, DetectorSettings, RunSettings, Settings
from derma_common.shipped import shipped

CLASSIFIER = shipped("models") / "efficientnet-b0-skin"
NOTHING = Report(problems=("NVIDIA's driver: not installed",))
FULL = Report("13.0", (Gpu(0, "Quadro RTX 6000", "7.5", 24 << 30),), "tensorrt 10.3.0", "pycuda")


@pytest.fixture
def settle(tmp_path, monkeypatch):
    """Settle the classifier's runner on a machine as reported; returns it and what was said."""

    def settle(report, **section):
        monkeypatch.setattr(runners, "probe", lambda: report)
        run = RunSettings(engine_dir=str(tmp_path / "engines"))
        settings = Settings(run=run, classifier=ClassifierSettings(**section))
        lines = []
        found = settled(settings, {"classifier": (CLASSIFIER, read_card(CLASSIFIER))}, lines.append)
        assert replace(found, classifier=settings.classifier) == settings
        return found.classifier.runner, lines

    return settle


def test_without_a_gpu_auto_is_the_cpu_and_nothing_is_said(settle):
    assert settle(NOTHING) == ("onnx", [])


def test_a_gpu_that_nothing_can_use_is_said(settle):
    bare = Report("13.0", FULL.gpus, problems=("TensorRT: no module named tensorrt_rtx",))
    runner, lines = settle(bare)
    assert runner == "onnx"
    assert lines == ["no network runs on the GPU: TensorRT: no module named tensorrt_rtx"]


def test_a_runner_that_is_named_and_cannot_run_stops_the_run(settle):
    with pytest.raises(ResourceError, match="the runner tensorrt cannot run here: NVIDIA's driver: not installed"):
        settle(NOTHING, runner="tensorrt")


def test_where_the_cpu_is_chosen_nobody_is_asked(settle, monkeypatch):
    def asked():
        raise AssertionError("asked for a GPU")

    monkeypatch.setattr(runners, "probe", asked)
    settings = Settings(classifier=ClassifierSettings(runner="onnx"))
    assert settled(settings, {"classifier": (CLASSIFIER, read_card(CLASSIFIER))}, print) == settings


def test_a_model_without_a_network_needs_no_runner(tmp_path, monkeypatch):
    monkeypatch.setattr(runners, "probe", lambda: NOTHING)
    directory = fake_detector(tmp_path / "m")
    settings = Settings(detector=DetectorSettings(runner="tensorrt"))
    assert settled(settings, {"detector": (directory, read_card(directory))}, print) == settings


def test_an_engine_that_cannot_be_had_leaves_the_cpu(settle, capfd):
    """The child is real, and finds that this machine has no GPU; where it has one, tests/gpu looks at the rest."""
    if runners.probe().gpus:
        pytest.skip("this machine has a GPU")
    runner, lines = settle(FULL)
    assert runner == "onnx"
    assert lines == [
        "efficientnet-b0-skin has no engine for this GPU: `derma models build` ended with 5, see above; "
        "it runs on the CPU"
    ]
    assert "no engine can be judged here" in capfd.readouterr().err


def test_an_engine_that_cannot_be_had_stops_a_run_that_wants_one(settle):
    if runners.probe().gpus:
        pytest.skip("this machine has a GPU")
    with pytest.raises(ResourceError, match="efficientnet-b0-skin has no engine for this GPU"):
        settle(FULL, runner="tensorrt")


def test_a_runner_on_a_gpu_is_left_to_the_services(settle):
    cuda = Report("13.0", FULL.gpus, providers=("CUDAExecutionProvider",))
    assert settle(cuda) == ("auto", [])
    assert settle(cuda, runner="onnx-cuda") == ("onnx-cuda", [])
