"""From pictures to a model directory that the pipeline reads, on a tiny scale."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("timm", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")

from derma_common.errors import ConfigError, ModelError  # noqa: E402
from derma_common.inference.card import read_card  # noqa: E402
from derma_common.inference.classification import Classifier  # noqa: E402
from derma_training.classifier import __main__ as classifier  # noqa: E402
from derma_training.classifier.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from derma_training.classifier.evaluate import evaluate_model  # noqa: E402
from derma_training.classifier.export import export_model  # noqa: E402
from derma_training.classifier.manifest import CLASSES  # noqa: E402
from derma_training.classifier.pack import Item, Pack, open_pack  # noqa: E402
from derma_training.classifier.train import (  # noqa: E402
    Recipe,
    draw_weights,
    learning_rate,
    new_run,
    predict_logits,
    train,
)

pytestmark = pytest.mark.train

RECIPE = Recipe(budget_s=10.0, size=32, early_size=32, batch=4, draws_per_epoch=8, threads=1)


class TickingClock:
    """A clock on which every look takes one second."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


def tiny_pack() -> Pack:
    """Draw noise for every class in every part, dermoscopic and by phone."""
    rng = np.random.default_rng(0)
    items = []
    for part in ("train", "calibration", "test"):
        for domain in ("dermoscopy", "phone"):
            items += [Item(label, part, domain, f"{part}-{label}", (40.0, 40.0, 160.0, 150.0)) for label in CLASSES[:8]]
        items += [Item("UNK", part, "hand", f"{part}-{i}") for i in range(2)]
    return Pack(rng.integers(0, 256, (len(items), 224, 224, 3), dtype=np.uint8), tuple(items))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pack]:
    """Return the directory of a run of a few steps, and its pictures."""
    directory, pack = tmp_path_factory.mktemp("run"), tiny_pack()
    train(pack, directory, RECIPE, clock=TickingClock())
    return directory, pack


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def test_the_learning_rate_rises_once_and_anneals_to_its_end() -> None:
    rates = [learning_rate(p, Recipe()) for p in np.linspace(0, 1, 101)]
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(Recipe().max_lr, rel=0.01)
    assert (np.diff(rates[: top + 1]) > 0).all() and (np.diff(rates[top:]) < 0).all()
    assert learning_rate(1.3, Recipe()) == pytest.approx(Recipe().max_lr / 1000)


def test_a_class_is_drawn_as_the_square_root_of_its_size() -> None:
    labels = ["NV"] * 400 + ["DF"] * 4
    weights = draw_weights(labels)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[:400].sum() / weights[400:].sum() == pytest.approx(10.0)


def test_a_run_ends_with_its_budget_and_logs_every_epoch(trained: tuple[Path, Pack]) -> None:
    lines = [json.loads(line) for line in (trained[0] / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[-1]["elapsed_s"] >= RECIPE.budget_s > lines[-2]["elapsed_s"]
    assert {"loss", "accuracy", "bma", "step"} <= set(lines[-1])


def test_a_run_continues_where_it_was_stopped(trained: tuple[Path, Pack], tmp_path: Path) -> None:
    directory, pack = trained
    for name in ("checkpoint.pt", "checkpoint.json"):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    before = new_run(RECIPE)
    assert load_checkpoint(before, tmp_path)
    after = train(pack, tmp_path, replace(RECIPE, budget_s=RECIPE.budget_s + 4), clock=TickingClock())
    assert after.epoch > before.epoch and after.step > before.step and after.elapsed_s > before.elapsed_s
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == after.epoch - before.epoch


def test_a_checkpoint_gives_back_what_was_saved(tmp_path: Path) -> None:
    run = new_run(RECIPE)
    run.epoch, run.step, run.elapsed_s, run.warm_started = 3, 40, 12.5, True
    save_checkpoint(run, tmp_path, {"size": 32})
    other = new_run(replace(RECIPE, seed=1))
    assert not same(other.model.state_dict(), run.model.state_dict())
    assert load_checkpoint(other, tmp_path)
    assert same(other.model.state_dict(), run.model.state_dict())
    assert (other.epoch, other.step, other.elapsed_s, other.warm_started) == (3, 40, 12.5, True)
    assert json.loads((tmp_path / "checkpoint.json").read_text())["recipe"] == {"size": 32}
    assert not list(tmp_path.glob("*.part"))


def test_a_damaged_checkpoint_is_refused_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"checkpoint\.pt cannot be read") as caught:
        load_checkpoint(new_run(RECIPE), tmp_path)
    assert "\n" not in str(caught.value)


def test_the_exported_model_is_read_and_measured_by_the_pipeline(
    trained: tuple[Path, Pack], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, pack = trained
    model = tmp_path / "tiny"
    card = export_model(directory, pack, model)
    assert "parity with PyTorch" in capsys.readouterr().out
    assert card.figures["parity_with_pytorch"] <= 1e-4
    assert read_card(model) == card and card.classes == CLASSES and card.crop_margin == 0.25
    opened = Classifier.open(model)
    crops = [np.asarray(image) for image in pack.images[:19]]  # more than one batch of 16
    probabilities = opened.classify(crops)
    opened.close()
    assert probabilities.shape == (19, 9)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(19), abs=1e-5)
    figures = evaluate_model(model, pack, threads=1)
    assert figures["HAM10000 val, whole 224 px picture"]["n"] == 8
    assert figures["UNK against all boxed lesions above"]["hand"]["kind_in_training"] is False
    assert read_card(model).figures["measured"]["command"].startswith("python -m derma_training.classifier")


def test_the_exported_model_answers_as_the_trained_one(trained: tuple[Path, Pack], tmp_path: Path) -> None:
    directory, pack = trained
    card = export_model(directory, pack, tmp_path / "tiny")
    run = new_run(RECIPE)
    load_checkpoint(run, directory)
    indices = pack.where("test", "phone")
    logits = predict_logits(run.average, pack, indices, 32, boxed=False)
    opened = Classifier.open(tmp_path / "tiny")
    found = opened.classify([np.asarray(pack.images[i]) for i in indices])
    opened.close()
    wanted = np.exp(logits / card.temperature)
    assert found == pytest.approx(wanted / wanted.sum(axis=1, keepdims=True), abs=1e-4)


def test_a_folder_that_is_no_pack_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="is no pack of pictures"):
        open_pack(tmp_path)
    assert classifier.main(["train", "--pack", str(tmp_path), "--run", str(tmp_path)]) == ConfigError.exit_code
    assert capsys.readouterr().err.count("\n") == 1
