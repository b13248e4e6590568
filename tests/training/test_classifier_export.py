"""From a trained network to a model directory that the pipeline opens."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.drawn_pictures import drawn_manifest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("timm", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")

from derma_common.errors import ConfigError, ModelError  # noqa: E402
from derma_common.inference.card import read_card, write_card  # noqa: E402
from derma_common.inference.classification import Classifier  # noqa: E402
from derma_common.inference.opening import open_runner  # noqa: E402
from derma_training.classifier import __main__ as classifier  # noqa: E402
from derma_training.classifier import export as export_module  # noqa: E402
from derma_training.classifier.architectures import HALF  # noqa: E402
from derma_training.classifier.export import export_network, export_onnx, notes_of  # noqa: E402
from derma_training.classifier.job import Budget  # noqa: E402
from derma_training.classifier.manifest import Manifest, read_manifest  # noqa: E402
from derma_training.classifier.network import build  # noqa: E402
from derma_training.classifier.pictures import read_picture  # noqa: E402
from derma_training.classifier.predict import predict_logits  # noqa: E402
from derma_training.classifier.recipes import DERMA, adapted  # noqa: E402
from derma_training.classifier.setup import Setup  # noqa: E402
from derma_training.classifier.train import train  # noqa: E402
from derma_training.classifier.trained import load_trained  # noqa: E402

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The directory of a short run, and its manifest."""
    out = tmp_path_factory.mktemp("run")
    manifest = read_manifest(drawn_manifest(out / "drawn", licence="CC-BY-4.0"))
    recipe = replace(adapted(DERMA, pretrained=False), batch=4)
    setup = Setup("test_efficientnet", manifest.classes, 32, HALF, HALF, recipe)
    train(manifest, out / "tiny", setup, Budget(1), threads=1)
    return out / "tiny", manifest


@pytest.fixture(scope="module")
def model(trained: tuple[Path, Manifest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = trained[0] / "model"
    export_network(load_trained(trained[0]), trained[1], directory)
    return directory


def test_the_card_says_what_the_network_is_and_saw(model: Path) -> None:
    card = read_card(model)
    assert card.id.startswith("tiny@") and card.kind == "classifier" and card.architecture == "test_efficientnet"
    assert card.classes == ("MEL", "NV", "UNK") and set(card.class_counts) == set(card.classes)
    assert card.outputs == ("logits", "features") and card.crop_margin == 0.25 and card.input.max_batch == 16
    assert card.licence == "CC-BY-4.0 (trained on CC-BY-4.0): name the sources"
    assert card.training_data == ("drawn: 12 pictures, CC-BY-4.0",)
    assert card.figures["parity_with_pytorch"] <= 1e-4
    assert card.figures["training"]["pictures"] == {"MEL": 4, "NV": 4, "UNK": 4}
    assert {"n", "bma", "macro_auc", "ece"} <= set(card.figures["calibration part"])
    assert any("fewer than 50 training pictures" in note for note in card.notes)
    assert not list(model.glob("*.part"))


def test_the_pipeline_answers_as_the_trained_network(trained: tuple[Path, Manifest], model: Path) -> None:
    network, rows = load_trained(trained[0]), trained[1].rows
    whole = [replace(row, box=None) for row in rows]  # 48 × 48: the centre square is all of the picture
    logits = predict_logits(network.model, whole, 32, HALF, HALF)
    opened = Classifier.open(model)
    found = opened.classify([read_picture(row.file) for row in rows])  # 18: more than one batch of 16
    opened.close()
    wanted = np.exp(logits.astype(np.float64) / read_card(model).temperature)
    assert found == pytest.approx(wanted / wanted.sum(axis=1, keepdims=True), abs=1e-4)


@pytest.mark.parametrize("n", [1, 2, 16])
def test_any_number_of_pictures_gives_logits_and_features(trained: tuple[Path, Manifest], model: Path, n: int) -> None:
    images = np.random.default_rng(n).normal(0.0, 1.0, (n, 3, 32, 32)).astype(np.float32)
    _, runner = open_runner(model, "classifier", threads=1)
    with runner:
        outputs = runner.infer({"image": images})
    network = load_trained(trained[0]).model
    with torch.no_grad():
        features = network.features(torch.from_numpy(images))
        logits = network.classify(features)
    assert outputs["features"] == pytest.approx(features.numpy(), abs=1e-4)
    assert outputs["logits"] == pytest.approx(logits.numpy(), abs=1e-4)


def test_the_temperature_is_the_best_for_the_calibration_part(trained: tuple[Path, Manifest], model: Path) -> None:
    network, manifest = load_trained(trained[0]), trained[1]
    rows = manifest.part("calibration")
    logits = torch.from_numpy(predict_logits(network.model, rows, 32, HALF, HALF).astype(np.float64))
    truth = torch.tensor([manifest.classes.index(row.label) for row in rows])
    temperature = read_card(model).temperature

    def loss(t: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / t, truth))

    assert all(loss(temperature) <= loss(t) + 1e-6 for t in (temperature * 0.97, temperature * 1.03) if t <= 20.0)


def test_a_file_that_does_not_answer_as_pytorch_is_refused(
    trained: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off_by_a_little(path: Path, inputs: Any) -> dict[str, Any]:
        return {name: value + 2e-4 for name, value in run_file(path, inputs).items()}

    run_file = export_module.run_file
    monkeypatch.setattr(export_module, "run_file", off_by_a_little)
    with pytest.raises(ModelError, match="differs from PyTorch by"):
        export_network(load_trained(trained[0]), trained[1], tmp_path / "model")
    assert not (tmp_path / "model" / "model.onnx").exists()


def test_a_network_that_takes_metadata_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the pipeline knows the picture only"):
        export_onnx(build("test_efficientnet", 3, about=5), tmp_path / "m.onnx", 32)


def test_notes_tell_what_is_known_of_skin_types(trained: tuple[Path, Manifest]) -> None:
    rows = trained[1].part("train")
    known = notes_of(rows, {"MEL": 400}, "x/start.pt", "teachers/one")
    assert "started from weights of start.pt, whose own licence applies too" in known
    assert "learned from one too (distillation)" in known
    dark = sum(row.fitzpatrick in "56" for row in rows)
    assert f"skin types V and VI: {dark} of 12 training pictures whose Fitzpatrick type is known" in known
    unknown = notes_of([replace(row, fitzpatrick="") for row in rows], {"MEL": 400}, "", "")
    assert any("not known" in note for note in unknown) and "trained from scratch" in unknown


def test_a_model_of_derma_is_a_start_for_another_with_other_classes(
    trained: tuple[Path, Manifest], model: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(drawn_manifest(tmp_path / "drawn", ("MEL", "NV")))
    recipe = replace(adapted(DERMA, pretrained=True), batch=4)
    start = str(model / "model.onnx")
    setup = Setup("test_efficientnet", manifest.classes, 32, HALF, HALF, recipe, weights=start, folded=True)
    train(manifest, tmp_path / "next", setup, Budget(1), threads=1)
    again = load_trained(tmp_path / "next")
    assert not any("bn" in name and "weight" in name for name in again.model.state_dict()), "its norms are folded away"
    card = export_network(again, manifest, tmp_path / "next" / "model")
    assert card.classes == ("MEL", "NV") and "started from tiny" in card.notes
    resumed = train(manifest, tmp_path / "next", setup, Budget(2), threads=1)
    assert resumed.epoch == 2


def test_a_network_learns_from_a_teacher_of_the_same_classes_only(
    trained: tuple[Path, Manifest], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--size", "32", "--epochs", "1", "--batch", "6", "--threads", "1", "--json"]
    teacher = tmp_path / "teacher" / "model"
    shutil.copytree(model, teacher)
    write_card(replace(read_card(model), licence="CC BY-NC 4.0 (trained on BY-NC data): research"), teacher)
    common += ["--teacher", str(teacher)]
    same = str(trained[0].parent / "drawn" / "manifest.csv")
    assert classifier.main(["train", "--manifest", same, "--out", str(tmp_path / "pupil"), *common]) == 0
    capsys.readouterr()
    card = read_card(tmp_path / "pupil" / "model")
    assert "learned from teacher too (distillation)" in card.notes
    assert card.licence.startswith("CC-BY-NC-4.0"), "the teacher's pictures count"
    other = str(drawn_manifest(tmp_path / "drawn", ("MEL", "NV")))
    status = classifier.main(["train", "--manifest", other, "--out", str(tmp_path / "other"), *common])
    assert status == ModelError.exit_code and "knows MEL, NV, UNK" in capsys.readouterr().err


def test_the_command_trains_and_exports_and_a_second_time_only_exports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = drawn_manifest(tmp_path / "drawn")
    words = ["train", "--manifest", str(manifest), "--out", str(tmp_path / "mine"), "--size", "32", "--epochs", "1"]
    words += ["--batch", "6", "--threads", "1", "--sampling", "over", "--class-weights", "effective", "--json"]
    assert classifier.main(words) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["id"].startswith("mine@") and first["licence"].startswith("CC0-1.0")
    (tmp_path / "mine" / "model" / "model.onnx").unlink()
    assert classifier.main(words) == 0
    assert json.loads(capsys.readouterr().out)["calibration"] == first["calibration"]
    assert len((tmp_path / "mine" / "log.jsonl").read_text().splitlines()) == 1
    Classifier.open(tmp_path / "mine" / "model").close()
