"""Training on a tiny scale: budgets, recipes, resuming, what goes wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.drawn_pictures import drawn_manifest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("timm", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")

from derma_common.errors import ConfigError, ModelError, RunError  # noqa: E402
from derma_training.classifier import __main__ as classifier  # noqa: E402
from derma_training.classifier import epoch as epoch_module  # noqa: E402
from derma_training.classifier.architectures import HALF  # noqa: E402
from derma_training.classifier.job import Budget  # noqa: E402
from derma_training.classifier.manifest import Manifest, Row, read_manifest  # noqa: E402
from derma_training.classifier.recipes import DERMA, RECIPES, Stage, adapted  # noqa: E402
from derma_training.classifier.run import Run, new_run  # noqa: E402
from derma_training.classifier.setup import Setup  # noqa: E402
from derma_training.classifier.train import train  # noqa: E402
from derma_training.classifier.trained import load_trained  # noqa: E402
from derma_training.device import device_of  # noqa: E402

pytestmark = pytest.mark.train

TINY = "test_efficientnet"  # timm makes it for tests: a third of a million weights
RECIPE = replace(adapted(DERMA, pretrained=False), batch=4, early_share=0.0)


class TickingClock:
    """A clock on which every look takes one second."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(drawn_manifest(tmp_path_factory.mktemp("pictures") / "drawn"))


def setup_of(manifest: Manifest, **changes: Any) -> Setup:
    usual: dict[str, Any] = {"architecture": TINY, "classes": manifest.classes, "size": 32}
    return Setup(**{**usual, "mean": HALF, "std": HALF, "recipe": RECIPE, **changes})


def run(manifest: Manifest, out: Path, setup: Setup | None = None, epochs: int = 2, **others: Any) -> Run:
    return train(manifest, out, setup or setup_of(manifest), Budget(epochs), threads=1, **others)


@pytest.fixture(scope="module")
def whole(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A run of three epochs without a break."""
    out = tmp_path_factory.mktemp("whole")
    return out, run(manifest, out, epochs=3)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def weights(run_or_network: Any) -> dict[str, Any]:
    return dict(getattr(run_or_network, "average", run_or_network).state_dict())


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(a[k], b[k]) for k in a)


def test_every_epoch_is_logged_saved_and_drawn(whole: tuple[Path, Run]) -> None:
    out, finished = whole
    assert [line["epoch"] for line in lines(out)] == [1, 2, 3]
    assert {"loss", "lr", "step", "elapsed_s", "images_per_s", "calibration"} <= set(lines(out)[-1])
    assert set(lines(out)[-1]["calibration"]) == {"loss", "accuracy", "bma", "macro_auc"}
    assert json.loads((out / "run.json").read_text())["setup"]["recipe"]["name"] == "derma"
    assert (out / "curves.png").is_file() and not list(out.glob("*.part"))
    assert finished.step == 9, "12 pictures to learn from make three batches of four"


def test_a_run_killed_within_an_epoch_ends_as_if_it_had_not_been(
    whole: tuple[Path, Run], manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_module, "SAVE_EVERY_S", 0.0)  # a checkpoint after every step
    take_step, steps = epoch_module._train_step, iter(range(5))

    def killed_at_the_sixth(*arguments: Any) -> float:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return take_step(*arguments)

    monkeypatch.setattr(epoch_module, "_train_step", killed_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        run(manifest, tmp_path, epochs=3)
    assert json.loads((tmp_path / "run.json").read_text())["step"] == 5
    monkeypatch.setattr(epoch_module, "_train_step", take_step)
    torch.rand(7)  # what another process would have drawn meanwhile
    resumed = run(manifest, tmp_path, epochs=3)
    assert (resumed.step, resumed.epoch) == (9, 3)
    assert same(weights(resumed), weights(whole[1]))


def test_a_finished_run_is_not_trained_further(whole: tuple[Path, Run], manifest: Manifest) -> None:
    again = run(manifest, whole[0], epochs=3)
    assert again.step == 9 and len(lines(whole[0])) == 3


def test_a_budget_of_minutes_ends_the_run_annealed(manifest: Manifest, tmp_path: Path) -> None:
    budget = Budget(epochs=1, minutes=0.3)
    finished = train(manifest, tmp_path, setup_of(manifest), budget, threads=1, clock=TickingClock())
    assert 18.0 <= finished.elapsed_s < 24.0
    assert lines(tmp_path)[-1]["lr"] < lines(tmp_path)[0]["lr"] / 5


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_trains_and_its_network_is_read_again(name: str, manifest: Manifest, tmp_path: Path) -> None:
    recipe = replace(RECIPES[name], batch=6)
    finished = run(manifest, tmp_path, setup_of(manifest, recipe=recipe), epochs=1)
    trained = load_trained(tmp_path)
    assert same(weights(trained.model), weights(finished)) and trained.classes == manifest.classes
    images = torch.zeros(2, 3, 32, 32)
    features = trained.model.features(images)
    assert features.shape == (2, 512 if name == "steppan" else 256)
    assert torch.equal(trained.model.classify(features), trained.model(images))


def test_a_frozen_body_keeps_its_weights_and_learns_its_norms(manifest: Manifest, tmp_path: Path) -> None:
    recipe = replace(RECIPE, stages=(Stage(1.0, 0.0, 1e-2),), ema_decay=0.0)
    torch.manual_seed(0)
    before = weights(setup_of(manifest, recipe=recipe).network(folded=False))
    after = weights(run(manifest, tmp_path, setup_of(manifest, recipe=recipe), epochs=1))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"body.classifier.weight", "body.bn1.weight", "body.bn1.running_mean"} <= moved
    assert not any("conv" in name for name in moved)


def test_kept_stages_never_learn(manifest: Manifest, tmp_path: Path) -> None:
    recipe = replace(RECIPE, ema_decay=0.0)
    torch.manual_seed(0)
    before = dict(setup_of(manifest, recipe=recipe).network(folded=False).named_parameters())
    after = weights(run(manifest, tmp_path, setup_of(manifest, recipe=recipe, kept_stages=2), epochs=1))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("body.blocks.2") for name in moved) and "body.classifier.weight" in moved
    assert not any(name.startswith(("body.conv_stem", "body.bn1", "body.blocks.0", "body.blocks.1")) for name in moved)


def test_metadata_is_learned_from_and_such_a_network_is_kept_but_not_exported(
    manifest: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = manifest.rows[0].file.parent / "manifest.csv"
    words = ["--size", "32", "--epochs", "1", "--batch", "6", "--threads", "1", "--metadata", "--json"]
    assert classifier.main(["train", "--manifest", str(csv), "--out", str(tmp_path), *words]) == 0
    assert json.loads(capsys.readouterr().out)["model"] is None and not (tmp_path / "model").exists()
    trained = load_trained(tmp_path)
    assert trained.setup.sites == ("arm", "back")
    about = torch.from_numpy(trained.setup.encoder.encode(manifest.rows[:2]))  # type: ignore[union-attr]
    images = torch.zeros(2, 3, 32, 32)
    logits = [trained.model(images, a) for a in (about, torch.zeros_like(about))]
    assert not torch.allclose(*logits), "what is known of the person counts"


def test_early_stopping_keeps_the_best_epoch(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from derma_training.classifier import train as train_module

    found = iter([0.3, 0.6, 0.5, 0.6, 0.9])
    kept: list[dict[str, Any]] = []

    def measured(run: Run, job: Any) -> dict[str, float]:
        kept.append({name: value.clone() for name, value in weights(run).items()})
        return {"loss": 1.0, "accuracy": 0.5, "bma": next(found), "macro_auc": float("nan")}

    monkeypatch.setattr(train_module, "evaluate", measured)
    finished = run(manifest, tmp_path, setup_of(manifest, patience=2), epochs=5)
    assert finished.epoch == 4, "two epochs without a better one"
    trained = load_trained(tmp_path)
    assert trained.epochs == 2 and same(weights(trained.model), kept[1]) and not same(kept[1], kept[3])
    assert lines(tmp_path)[0]["calibration"]["macro_auc"] is None, "JSON has no NaN"


def test_a_loss_that_is_no_number_stops_the_run_with_one_line(manifest: Manifest, tmp_path: Path) -> None:
    def broken(logits: Any, labels: Any, images: Any) -> Any:
        return logits.sum() * float("nan")

    with pytest.raises(RunError, match="the loss became nan in epoch 1, step 1: use a smaller --lr") as caught:
        run(manifest, tmp_path, criterion=broken)
    assert "\n" not in str(caught.value) and not (tmp_path / "checkpoint.pt").exists()


def test_another_network_does_not_go_on_with_a_run(whole: tuple[Path, Run], manifest: Manifest) -> None:
    for change, said in (
        ({"architecture": "test_efficientnet_ln"}, f"another architecture ({TINY}, not test_efficientnet_ln)"),
        ({"size": 64}, "another size (32, not 64)"),
        ({"recipe": replace(RECIPES["esteva"])}, "another recipe (derma, not esteva)"),
    ):
        with pytest.raises(ModelError) as caught:
            run(manifest, whole[0], setup_of(manifest, **change))
        assert said in str(caught.value) and "choose another --out" in str(caught.value)


def test_damaged_and_foreign_checkpoints_are_refused_with_one_line(
    whole: tuple[Path, Run], manifest: Manifest, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes((whole[0] / "checkpoint.pt").read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be read as a checkpoint") as caught:
        run(manifest, tmp_path)
    assert "\n" not in str(caught.value)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="is no checkpoint of this program"):
        load_trained(tmp_path)
    torch.save(torch.nn.Linear(2, 2), path)  # a pickled module: never unpickled
    with pytest.raises(ModelError, match="cannot be read as a checkpoint"):
        load_trained(tmp_path)


def test_single_class_data_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = drawn_manifest(tmp_path / "drawn", ("NV",))
    assert classifier.main(["train", "--manifest", str(csv), "--out", str(tmp_path / "out")]) == ConfigError.exit_code
    said = capsys.readouterr().err
    assert "all pictures are NV: a classifier needs at least two classes" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_manifest_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--manifest", str(tmp_path / "none.csv"), "--out", str(tmp_path / "out")]
    assert classifier.main(["train", *words]) == ConfigError.exit_code
    assert "none.csv cannot be read" in capsys.readouterr().err


def test_other_data_do_not_go_on_with_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv = drawn_manifest(tmp_path / "drawn")
    words = ["train", "--manifest", str(csv), "--out", str(tmp_path / "out"), "--size", "32", "--batch", "6"]
    words += ["--epochs", "1", "--threads", "1", "--metadata"]  # metadata: nothing is exported
    assert classifier.main(words) == 0
    csv.write_text("\n".join(csv.read_text().splitlines()[:-1]))
    assert classifier.main(words) == ModelError.exit_code
    assert "holds a run with another data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--batch", "1"], "--batch must be 2 or more"),
        (["--size", "16"], "--size must be 32 or more"),
        (["--epochs", "-1"], "cannot be negative"),
        (["--size", "32", "--keep-stages", "99"], "only an EfficientNet keeps stages, and not 99"),
        (["--fold", "7"], "there is no fold 7"),
        (["--emphasis", "PHONE=2"], "--emphasis PHONE: the manifest has the classes MEL, NV, UNK and the sources"),
        (["--weights", "none.pt"], "there is no file none.pt"),
        (["--weights", "none/model.onnx"], "none is no model"),
        (["--size", "40", "--architecture", "inception_v3"], "cannot take pictures of 40 px"),
    ],
)
def test_a_wrong_wish_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    csv = drawn_manifest(tmp_path / "drawn")
    assert classifier.main(["train", "--manifest", str(csv), "--out", str(tmp_path / "out"), *words]) in (2, 4)
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1


def test_a_device_that_is_not_there_is_refused() -> None:
    assert device_of("cpu") == "cpu"
    if not torch.cuda.is_available():
        assert device_of("auto") == "cpu"
        with pytest.raises(ConfigError, match="PyTorch finds no CUDA device"):
            device_of("cuda")


def test_a_network_learns(tmp_path: Path) -> None:
    rows, rng = [], np.random.default_rng(0)
    for i in range(40):
        image = rng.integers(60, 120, (40, 40, 3), dtype=np.uint8)
        image[..., 2 * (i % 2)] += 90  # blue or red
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
        rows.append(Row(tmp_path / f"{i}.png", ("blue", "red")[i % 2], str(i), str(i // 20)))
    coloured = Manifest(tuple(rows), ("blue", "red"))
    recipe = replace(adapted(DERMA, pretrained=False, peak_lr=5e-3), batch=4, early_share=0.0, ema_decay=0.0)
    run(coloured, tmp_path / "out", setup_of(coloured, recipe=recipe), epochs=6)
    assert lines(tmp_path / "out")[-1]["calibration"]["accuracy"] == 1.0


@pytest.fixture
def copied(whole: tuple[Path, Run], tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(whole[0], tmp_path / "copy")
    yield tmp_path / "copy"


def test_a_longer_budget_goes_on_with_a_finished_run(copied: Path, manifest: Manifest) -> None:
    assert run(manifest, copied, epochs=4).epoch == 4


def test_the_optimizer_of_esteva_is_tensorflows() -> None:
    setup = setup_of(Manifest((), ("a", "b")), recipe=RECIPES["esteva"])
    optimizer = new_run(setup, setup.network(folded=False), "cpu").optimizer
    assert type(optimizer).__name__ == "RMSpropTF"
    group = optimizer.param_groups[0]
    assert (group["alpha"], group["momentum"], group["eps"], group["weight_decay"]) == (0.9, 0.9, 0.1, 0.0)
