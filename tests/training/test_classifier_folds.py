"""A cross-validation's figures: each run on its own fold, then mean and standard deviation."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from support.painted import paint_table

from derma_training.classifier.__main__ import main


@pytest.fixture
def runs(classifier_dir: Path, tmp_path: Path) -> list[str]:
    """Three runs that say melanoma of everything, and pictures: of the four in each fold 1, 2 and 3 are melanomas."""
    rows = [{"label": "melanoma" if i <= fold else "benign", "fold": str(fold)} for fold in range(3) for i in range(4)]
    paint_table(tmp_path / "pictures", ["NV"] * 12, rows)
    for fold in range(3):
        shutil.copytree(classifier_dir, tmp_path / f"run{fold}" / "model")
        (tmp_path / f"run{fold}" / "run.json").write_text(json.dumps({"setup": {"fold": fold}}))
    return [str(tmp_path / f"run{fold}") for fold in range(3)]


def asked(runs: list[str], *more: str) -> int:
    return main(["folds", *runs, "--manifest", str(Path(runs[0]).parent / "pictures" / "labels.csv"), *more])


def test_mean_and_deviation_are_those_of_the_folds(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(runs, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [(row["fold"], row["n"], row["accuracy"]) for row in document["folds"]] == [
        (0, 4, 0.25), (1, 4, 0.5), (2, 4, 0.75),
    ]  # fmt: skip
    assert document["accuracy"] == {"mean": 0.5, "sd": 0.25}
    assert document["bma"] == {"mean": 0.5, "sd": 0.0}


def test_the_classes_may_be_those_of_a_view(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    view = Path(runs[0]).parent / "one.json"
    view.write_text(json.dumps({"views": {"one": {"skin": ["benign", "suspicious"]}}}))
    assert asked(runs, "--view", str(view)) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == ["n", "accuracy", "bma", "macro_auc", "ece"]
    assert "1.000 ± 0.000" in said[-1], "everything is skin"


@pytest.mark.parametrize(
    ("chosen", "said"),
    [([0], "two runs or more"), ([0, 0], r"a fold of its own, not \[0, 0\]"), ([0, None], "is no training run")],
)
def test_what_is_no_cross_validation_is_one_clear_line(
    runs: list[str], capsys: pytest.CaptureFixture[str], chosen: list[int | None], said: str
) -> None:
    folders = [runs[i] if i is not None else str(Path(runs[0]).parent / "pictures") for i in chosen]
    assert asked(folders) in (2, 4)
    printed = capsys.readouterr()
    assert re.search(said, printed.err) and printed.err.count("\n") == 1
