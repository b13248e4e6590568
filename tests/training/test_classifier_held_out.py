"""`bench/classifiers.py`: one plan of what is held out gives every figure, and the cards get theirs."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from support.painted import paint_table

from derma_common.inference.card import read_card

BENCH = Path(__file__).parents[2] / "bench" / "classifiers.py"
PLAN = """
[[table]]
title = "two kinds"
labels = "lesions/labels.csv"
where = {split = "val"}
views = ["blog"]
lesions = true

[[unknown]]
labels = "strange/labels.csv"
trained = ["cloth"]
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    rows = [{"label": label, "split": split} for label in ("benign", "melanoma") for split in ("val", "val", "train")]
    paint_table(tmp_path / "lesions", ["NV"] * 6, rows)
    paint_table(tmp_path / "strange", ["UNK"] * 3, [{"label": "UNK", "source": s} for s in ("cloth", "cloth", "wall")])
    (tmp_path / "plan.toml").write_text(PLAN)
    return tmp_path / "plan.toml"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", [str(BENCH), *arguments])
    return int(runpy.run_path(str(BENCH))["main"]())


def measured(plan: Path, *models: Path) -> list[str]:
    return [
        str(plan),
        *(word for model in models for word in ("--model", str(model))),
        "--draws",
        "5",
        "--threads",
        "1",
    ]


def test_each_model_and_their_mean_are_asked_in_every_way(
    plan: Path,
    classifier_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    card = json.loads((classifier_dir / "card.json").read_text())
    counts = {"benign": 1, "melanoma": 10, "unknown": 1}
    (classifier_dir / "card.json").write_text(json.dumps(card | {"class_counts": counts}))
    second = Path(shutil.copytree(classifier_dir, tmp_path / "second"))
    (second / "card.json").write_text(json.dumps(card | {"class_counts": counts, "name": "second"}))
    assert run(monkeypatch, *measured(plan, classifier_dir, second), "--json", "--write") == 0
    found = json.loads(capsys.readouterr().out)
    one, other = read_card(classifier_dir).id, read_card(second).id
    assert set(found["tables"]["two kinds"]) == {one, other, f"mean of {one} and {other}"}
    ways = found["tables"]["two kinds"][one]["ways"]
    assert set(ways) == {"plain", "dihedral", "plain, priors rescaled", "dihedral, priors rescaled"}
    assert ways["plain"]["recall"] == {"benign": 0.0, "melanoma": 1.0}, "the fake says melanoma of everything"
    assert ways["plain, priors rescaled"]["recall"] == {"benign": 1.0, "melanoma": 0.0}, "but for its prior, benign"
    assert set(found["tables"]["two kinds"][one]) == {"ways", "as blog"}
    kinds = found["unknown"][one]
    assert (kinds["cloth"]["n"], kinds["wall"]["n"]) == (2, 1)
    assert (kinds["cloth"]["kind_in_training"], kinds["wall"]["kind_in_training"]) == (True, False)
    assert kinds["wall"]["p_unk"]["auroc"] == 0.5 and kinds["wall"]["called_unk"] == 0.0
    figures = read_card(classifier_dir).figures
    assert figures["two kinds"]["n"] == 4 and figures["two kinds"]["ways"] == ways
    assert figures["unknown pictures, against all lesions"] == kinds
    assert read_card(second).figures[f"mean of {one} and {other}"]["two kinds"]["ways"]["plain"]["accuracy"] == 0.5


def test_a_plan_that_is_none_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.toml").write_text('[[table]]\ntitle = "x"\ncolour = "red"\n')
    assert run(monkeypatch, str(tmp_path / "plan.toml"), "--model", "x") == 2
    said = capsys.readouterr().err
    assert "is no plan of what is held out" in said and "colour" in said and said.count("\n") == 1
