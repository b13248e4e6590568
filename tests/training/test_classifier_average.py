"""The average of a run and the model that it started from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.drawn_pictures import drawn_manifest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("timm", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")

from derma_common.errors import ConfigError, ModelError  # noqa: E402
from derma_common.inference.card import read_card, write_card  # noqa: E402
from derma_common.inference.onnx import run_file  # noqa: E402
from derma_training.classifier import __main__ as classifier  # noqa: E402
from derma_training.classifier.architectures import HALF  # noqa: E402
from derma_training.classifier.averaging import averaged  # noqa: E402
from derma_training.classifier.export import export_network  # noqa: E402
from derma_training.classifier.job import Budget  # noqa: E402
from derma_training.classifier.manifest import read_manifest  # noqa: E402
from derma_training.classifier.recipes import DERMA, adapted  # noqa: E402
from derma_training.classifier.setup import Setup  # noqa: E402
from derma_training.classifier.train import train  # noqa: E402
from derma_training.classifier.trained import load_trained  # noqa: E402

pytestmark = pytest.mark.train

IMAGES = np.random.default_rng(0).normal(0.0, 0.5, (2, 3, 32, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `manifest.csv`, the run `first` and its model, and the run `second` that started from it."""
    folder = tmp_path_factory.mktemp("runs")
    csv = drawn_manifest(folder / "drawn", licence="CC-BY-4.0")
    manifest = read_manifest(csv)
    recipe = replace(adapted(DERMA, pretrained=False, peak_lr=5e-3), batch=4, ema_decay=0.0)
    setup = Setup("test_efficientnet", manifest.classes, 32, HALF, HALF, recipe)
    train(manifest, folder / "first", setup, Budget(1), threads=1)
    export_network(load_trained(folder / "first"), manifest, folder / "first" / "model")
    onward = replace(setup, weights=str(folder / "first" / "model" / "model.onnx"), folded=True)
    train(manifest, folder / "second", onward, Budget(1), threads=1)
    return folder


@pytest.mark.parametrize(("share", "same_as"), [(0.0, "second"), (1.0, "first")])
def test_all_of_one_network_is_that_network(start: Path, share: float, same_as: str) -> None:
    mixed = averaged(load_trained(start / "second"), start / "first" / "model", share)
    with torch.no_grad():
        found = mixed.model(torch.from_numpy(IMAGES)).numpy()
        wanted = load_trained(start / same_as).model(torch.from_numpy(IMAGES)).numpy()
    assert found == pytest.approx(wanted, abs=1e-4)


def test_a_run_with_norms_is_averaged_in_the_form_of_the_exported_model(start: Path) -> None:
    mixed = averaged(load_trained(start / "first"), start / "first" / "model", 0.3)
    with torch.no_grad():
        found = mixed.model(torch.from_numpy(IMAGES)).numpy()
    assert found == pytest.approx(
        run_file(start / "first" / "model" / "model.onnx", {"image": IMAGES})["logits"], abs=1e-4
    )


def test_every_weight_lies_between(start: Path) -> None:
    second = load_trained(start / "second").model.state_dict()
    first = averaged(load_trained(start / "second"), start / "first" / "model", 1.0).model.state_dict()
    mixed = averaged(load_trained(start / "second"), start / "first" / "model", 0.25).model.state_dict()
    for name, value in mixed.items():
        torch.testing.assert_close(value, 0.75 * second[name] + 0.25 * first[name])
    assert any(not torch.equal(first[name], second[name]) for name in first), "the second run learned something"


def test_the_command_exports_a_model_whose_card_says_what_was_mixed(
    start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["average", str(start / "second"), str(start / "first" / "model"), "--share", "0.3"]
    words += ["--manifest", str(start / "drawn" / "manifest.csv"), "--out", str(tmp_path / "mixed")]
    assert classifier.main(words) == 0
    card = read_card(tmp_path / "mixed")
    assert json.loads(capsys.readouterr().out)["id"] == card.id and card.name == "mixed"
    assert card.notes[-1] == "weights: 0.7 of the run second, 0.3 of first"
    assert "CC-BY-4.0" in card.licence and card.figures["calibration part"]["n"] == 6


def test_a_model_with_other_classes_is_refused(start: Path, tmp_path: Path) -> None:
    card = read_card(start / "first" / "model")
    write_card(replace(card, classes=("MEL", "NV", "DF"), class_counts={}), tmp_path)
    with pytest.raises(ModelError, match="first knows MEL, NV, DF, the run MEL, NV, UNK"):
        averaged(load_trained(start / "second"), tmp_path, 0.5)


def test_a_share_above_one_is_refused(start: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["average", str(start / "second"), str(start / "first" / "model"), "--share", "1.5", "--out", "x"]
    assert classifier.main([*words, "--manifest", "none.csv"]) == ConfigError.exit_code
    assert "--share 1.5 is no share from 0 to 1" in capsys.readouterr().err
