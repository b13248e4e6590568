"""From a model to an engine that may serve.

What is built here is real: tensorrt-rtx builds engines without a GPU. Where an engine must run, which takes one, ONNX
Runtime stands in: its "engine" is the converted network.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import cv2
import pytest

from derma_common.errors import ModelError
from derma_common.inference.building import EngineMaker, prebuild
from derma_common.inference.card import sha256_of
from derma_common.inference.choice import RunnerChoice
from derma_common.inference.engines import EngineCache, EngineKey
from derma_common.inference.examples import examples
from derma_common.inference.fake import fake_detector
from derma_common.inference.gate import Verdict
from derma_common.inference.onnx import OnnxRunner
from derma_common.inference.probe import Gpu, Report
from derma_common.shipped import shipped

onnx = pytest.importorskip("onnx")

GOOD = Verdict(True, (), {"difference": 0.001})
REPORT = Report("13.0", (Gpu(0, "Quadro RTX 6000", "7.5", 24 << 30),), "tensorrt 10.3.0", "pycuda")
CLASSIFIER = shipped("models") / "efficientnet-b0-skin"
DETECTOR = shipped("models") / "yolov4-tiny-mole"


class OnnxEngines:
    """ONNX Runtime as a builder: an engine is the network that TensorRT would be given."""

    def __init__(self, flavour="stand-in 1.0", alter=None):
        self.flavour, self.built, self.loaded = flavour, [], 0
        self._alter = alter or (lambda network: network)

    def build(self, network, card, sm, cache, progress):
        self.built.append((card.name, sm))
        return self._alter(network)

    def load(self, card, engine, name, choice):
        self.loaded += 1
        return OnnxRunner(card, engine, 1, name)


@pytest.fixture
def choice(tmp_path, few_pictures):
    return RunnerChoice("tensorrt", 0, "fp16", tmp_path / "engines", few_pictures)


@pytest.fixture(scope="module")
def few_pictures(tmp_path_factory):
    """Frames of the sample with lesions in them."""
    folder = tmp_path_factory.mktemp("pictures")
    for i, picture in enumerate(examples(None)[10:46:18]):
        assert cv2.imwrite(str(folder / f"{i}.png"), picture.image)
    return folder


def test_an_engine_is_built_and_judged_once(choice):
    backend = OnnxEngines()
    made = EngineMaker(CLASSIFIER, choice, backend).prepare(REPORT)
    assert made.runner.name == "stand-in 1.0 fp16"
    assert made.verdict.passed
    made.runner.close()
    again = EngineMaker(CLASSIFIER, choice, backend).prepare(REPORT)
    assert (again.path, again.verdict) == (made.path, made.verdict)
    assert len(backend.built) == 1
    assert backend.loaded == 2
    again.runner.close()


@pytest.mark.parametrize(
    "other",
    [
        replace(REPORT, driver="13.1"),
        replace(REPORT, gpus=(Gpu(0, "Quadro RTX 8000", "7.5", 48 << 30),)),
    ],
    ids=["driver", "GPU"],
)
def test_another_machine_builds_anew(choice, other):
    backend = OnnxEngines()
    for report in (REPORT, other):
        EngineMaker(CLASSIFIER, choice, backend).prepare(report).runner.close()
    assert len(backend.built) == 2


def test_an_engine_that_was_changed_is_built_anew(choice):
    backend = OnnxEngines()
    made = EngineMaker(CLASSIFIER, choice, backend).prepare(REPORT)
    made.runner.close()
    made.path.write_bytes(b"a program of somebody else's")
    again = EngineMaker(CLASSIFIER, choice, backend).prepare(REPORT)
    again.runner.close()
    assert len(backend.built) == 2
    assert again.path.read_bytes() != b"a program of somebody else's"


def test_an_engine_that_does_not_load_any_more_is_built_anew(choice, caplog):
    """As after an update that the key does not see."""
    backend, cache = OnnxEngines(), EngineCache(choice.engine_dir)
    made = EngineMaker(CLASSIFIER, choice, backend).prepare(REPORT)
    made.runner.close()
    (sidecar,) = cache.folder.glob("*.json")
    cache.store(EngineKey(**json.loads(sidecar.read_bytes())["key"]), b"of another time", GOOD)
    EngineMaker(CLASSIFIER, choice, backend).prepare(REPORT).runner.close()
    assert "it is built anew" in caplog.text
    assert len(backend.built) == 2


def broken(network):
    """A network whose last weights were halved: it opens and is wrong."""
    model = onnx.load_from_string(network)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("classifier.bias") or "classifier.weight" in tensor.name:
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array((values * 0.5).astype(values.dtype), tensor.name))
    return model.SerializeToString()


def is_half(network):
    return any(t.data_type == onnx.TensorProto.FLOAT16 for t in onnx.load_from_string(network).graph.initializer)


def test_an_engine_that_disagrees_gives_way_to_a_more_precise_one_and_the_log_says_why(choice, caplog):
    backend = OnnxEngines(alter=lambda network: broken(network) if is_half(network) else network)
    made = EngineMaker(CLASSIFIER, choice, backend).prepare(REPORT)
    made.runner.close()
    assert made.precision == "fp32"
    assert "its fp16 engine disagrees with its network: scores differ by" in caplog.text
    again = EngineMaker(CLASSIFIER, choice, backend).prepare(REPORT)
    again.runner.close()
    assert again.precision == "fp32"
    assert len(backend.built) == 2, "what was refused is not built at every start"


@pytest.mark.slow
def test_the_classifier_in_int8_loses_its_decisions_and_fp16_takes_its_place(choice, caplog):
    """EfficientNet without retraining does not bear int8; the gate has to see that."""
    made = EngineMaker(CLASSIFIER, replace(choice, precision="int8"), OnnxEngines()).prepare(REPORT)
    made.runner.close()
    assert made.precision == "fp16"
    assert "its int8 engine disagrees with its network" in caplog.text
    assert "accuracy may be lower" in caplog.text


def test_when_no_engine_agrees_there_is_none(choice):
    with pytest.raises(ModelError, match=r"fp16 engine disagrees.*fp32 engine disagrees") as caught:
        EngineMaker(CLASSIFIER, choice, OnnxEngines(alter=broken)).prepare(REPORT)
    assert "\n" not in str(caught.value)


def test_an_engine_that_was_built_ahead_is_judged_at_its_first_use(choice):
    backend = OnnxEngines()
    maker = EngineMaker(CLASSIFIER, choice, backend)
    ahead = maker.prebuild("7.5")
    assert json.loads(next(ahead.parent.glob("*.json")).read_bytes())["verdict"] is None
    made = EngineMaker(CLASSIFIER, choice, backend).prepare(REPORT)
    made.runner.close()
    assert made.verdict.passed
    assert made.path == ahead
    assert len(backend.built) == 1


def test_a_model_of_another_kind_has_no_engine(tmp_path, choice):
    with pytest.raises(ModelError, match="engines are built from ONNX networks"):
        EngineMaker(fake_detector(tmp_path / "m"), choice, OnnxEngines())


# real engines, built for the AGX's GPU on a machine without one


@pytest.fixture(scope="module")
def rtx():
    return pytest.importorskip("tensorrt_rtx")


@pytest.mark.parametrize("model", [DETECTOR, CLASSIFIER], ids=lambda path: path.name)
def test_both_networks_are_built_for_the_agx(rtx, tmp_path, model):
    steps = []
    choice = RunnerChoice("tensorrt", 0, "fp16", tmp_path / "engines")
    path = prebuild(model, choice, "7.5", lambda *step: steps.append(step))
    assert path.stat().st_size > 1_000_000
    assert path.stem == sha256_of(path)
    (sidecar,) = choice.engine_dir.glob("*.json")
    key = json.loads(sidecar.read_bytes())["key"]
    assert (key["sm"], key["precision"], key["gpu"]) == ("7.5", "fp16", "any")
    assert key["flavour"] == f"tensorrt-rtx {rtx.__version__}"
    assert steps[0][:2] == ("building", 0)
    assert steps[-1][1] == steps[-1][2]


def test_a_real_engine_is_built_once_and_anew_when_it_was_changed(rtx, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "derma_common.inference.building")
    choice = RunnerChoice("tensorrt", 0, "fp16", tmp_path / "engines")
    path = prebuild(DETECTOR, choice, "7.5")
    good = path.read_bytes()
    assert prebuild(DETECTOR, choice, "7.5").read_bytes() == good
    assert caplog.text.count("building yolov4-tiny-mole for 7.5") == 1
    poisoned = bytearray(good)
    poisoned[len(good) // 2] ^= 1
    path.write_bytes(poisoned)
    again = prebuild(DETECTOR, choice, "7.5")
    assert again.stem == sha256_of(again)
    assert caplog.text.count("building yolov4-tiny-mole for 7.5") == 2
    assert "the engine was changed since it was built" in caplog.text


def test_a_capability_that_rtx_does_not_know_is_one_line(rtx, tmp_path):
    with pytest.raises(ModelError, match=r"tensorrt-rtx builds for SM\d+.*not for SM 5.0"):
        prebuild(DETECTOR, RunnerChoice("tensorrt", 0, "fp16", tmp_path / "engines"), "5.0")


@pytest.mark.slow
@pytest.mark.parametrize("model", [DETECTOR, CLASSIFIER], ids=lambda path: path.name)
def test_int8_engines_are_built_too(rtx, tmp_path, model):
    path = prebuild(model, RunnerChoice("tensorrt", 0, "int8", tmp_path / "engines"), "8.9")
    assert path.stat().st_size > 1_000_000


def test_what_turing_cannot_calculate_is_told_in_rtx_words(rtx, tmp_path):
    with pytest.raises(ModelError, match=r"cannot build it for SM 7.5.*FP32 GEMM is not supported") as caught:
        prebuild(CLASSIFIER, RunnerChoice("tensorrt", 0, "fp32", tmp_path / "engines"), "7.5")
    assert "\n" not in str(caught.value)
