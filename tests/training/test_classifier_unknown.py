"""Choosing a rule for the unknown: its threshold costs what was asked for, and the card gets all that it needs."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.painted import CLASSES, SIZE_PX, grey_network, paint_table

from derma_common.errors import ConfigError
from derma_common.inference.card import InputSpec, ModelCard, read_card, write_card
from derma_common.inference.classification import Classifier
from derma_common.inference.unknown import UnknownCheck
from derma_training.classifier.__main__ import main
from derma_training.classifier.commands import unknown as command
from derma_training.classifier.evaluation.table import Labelled, read_table

CARD = ModelCard(
    "grey", "classifier", "grey", "x", "0" * 64, InputSpec("i", SIZE_PX, SIZE_PX), ("logits",), CLASSES, ""
)


def table(folder: Path, rows: Sequence[tuple[str, str, tuple[int, int, int]]]) -> Path:
    """Write pictures of one colour and a manifest of label and fold."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("file", "label", "fold"))
        for i, (label, fold, colour) in enumerate(rows):
            cv2.imwrite(str(folder / f"{i}.png"), np.full((40, 40, 3), colour, dtype=np.uint8))
            writer.writerow((f"{i}.png", label, fold))
    return folder / "manifest.csv"


def fit(manifest: Path, score: str, **options: Any) -> tuple[Any, Any, dict[str, Any]]:
    asked = argparse.Namespace(
        score=score, lost=0.1, fold=0, neighbours=1, manifest=manifest, **{"risk": None, **options}
    )
    return command.fit(grey_network(sharpness=1.0), CARD, read_table(manifest), asked)


def test_the_threshold_costs_the_share_of_lesions_that_was_asked_for(tmp_path: Path) -> None:
    greys = [(175 + i, 175 + i, 175 + i) for i in range(10)]  # from SCC towards UNK
    rows = [("SCC", "0", grey) for grey in greys] + [("UNK", "0", (200, 200, 200)), ("UNK", "0", (0, 0, 0))]
    rule, known, figures = fit(table(tmp_path, [*rows, ("SCC", "1", (200, 200, 200))]), "p_unk")
    assert (rule.score, rule.told_as, known) == ("p_unk", "UNK", None)
    assert figures == {"lesions": 10, "lesions_lost": 0.1, "unknown": 2, "unknown_found": 0.5}


def test_known_features_are_those_of_learned_lesions_of_each_class_alike(tmp_path: Path) -> None:
    red, green, blue = (0, 0, 200), (0, 200, 0), (200, 0, 0)
    rows = [("NV", "1", red)] * 5 + [("MEL", "1", green), ("UNK", "1", blue), ("NV", "0", red), ("MEL", "0", blue)]
    rule, known, figures = fit(table(tmp_path, rows), "knn")
    assert known.dtype == np.float16 and np.linalg.norm(known, axis=1) == pytest.approx(np.ones(6), abs=1e-3)
    of_mel = known[:, 1] == 1.0
    assert of_mel.sum() == 1 and of_mel[:2].any(), "classes in turn, so that a cut leaves some of each"
    assert rule.neighbours == 1 and figures["unknown_found"] is None
    assert not known[:, 2].any(), "neither unknown pictures nor those held back are among the known"


def test_no_more_is_kept_than_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "KNOWN_BYTES", 13)  # two features of three numbers
    rows = [(label, "1", (9, 9, 9)) for label in ("NV", "NV", "MEL", "MEL")] + [("NV", "0", (9, 9, 9))]
    assert fit(table(tmp_path, rows), "knn")[1].shape == (2, 3)


def test_the_threshold_of_a_risk_leaves_fewer_wrong_answers_than_that(tmp_path: Path) -> None:
    sure = [("BCC", "0", (50, 50, 50))] * 60
    torn = [(name, "0", (62, 62, 62)) for name in ("BCC", "AK") * 10]  # half way: the answer is BCC
    rule, _, figures = fit(table(tmp_path, [*sure, *torn]), "max_softmax", risk=0.15)
    assert figures["risk"] == 0.0 and figures["risk_below"] == 0.15 and figures["answered"] == 0.75
    told = UnknownCheck(rule, CLASSES, None).told(
        np.asarray([[0.0, 0.15, 0.43, 0.42, 0, 0, 0, 0, 0]]), np.zeros((1, 9)), None
    )
    assert told.argmax() == CLASSES.index("UNK")


def test_a_risk_that_needs_no_rule_makes_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is below 0\.15 without a rule"):
        fit(table(tmp_path, [("BCC", "0", (50, 50, 50))] * 60), "max_softmax", risk=0.15)


def test_a_lesion_counts_once_for_a_risk(tmp_path: Path) -> None:
    rows = [Labelled(tmp_path, str(i), "NV", None, {"group": g}) for i, g in enumerate(["a", "b", "a", "", "", "b"])]
    assert sorted(command.first_of_groups(rows)) == [0, 1, 3, 4]


@pytest.mark.parametrize(
    ("rows", "score", "said"),
    [
        ([("NV", "1", (9, 9, 9)), ("UNK", "0", (9, 9, 9))], "p_unk", "fold 0 of .* holds no lesions"),
        (
            [("UNK", "1", (9, 9, 9)), ("NV", "0", (9, 9, 9)), ("NV", "1", (9, 9, 9))],
            "knn",
            "--neighbours 2: .* 1 lesions",
        ),
    ],
)
def test_what_cannot_be_chosen_is_said(tmp_path: Path, rows: Any, score: str, said: str) -> None:
    manifest = table(tmp_path, rows)
    asked = argparse.Namespace(score=score, lost=0.1, fold=0, neighbours=2, risk=None, manifest=manifest)
    with pytest.raises(ConfigError, match=said):
        command.fit(grey_network(), CARD, read_table(manifest), asked)


def test_a_network_without_a_class_for_the_unknown_has_no_rule(tmp_path: Path) -> None:
    manifest = table(tmp_path, [("NV", "0", (9, 9, 9)), ("MEL", "1", (9, 9, 9))])
    asked = argparse.Namespace(score="p_unk", lost=0.1, fold=0, neighbours=2, risk=None, manifest=manifest)
    with pytest.raises(ConfigError, match="has none for the unknown"):
        command.fit(grey_network(("MEL", "NV")), replace(CARD, classes=("MEL", "NV")), read_table(manifest), asked)


def test_the_command_writes_the_rule_and_the_service_opens_it(
    classifier_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_card(replace(read_card(classifier_dir), outputs=("logits", "features")), classifier_dir)
    rows = [{"label": name, "fold": fold} for name in ("benign", "melanoma", "unknown") for fold in ("0", "1", "test")]
    manifest = paint_table(tmp_path / "pictures", ["NV"] * 9, rows)
    words = ["unknown", str(classifier_dir), "--manifest", str(manifest), "--score", "knn", "--neighbours", "2"]
    assert main(words) == 0
    rule, printed = read_card(classifier_dir).unknown, json.loads(capsys.readouterr().out)
    assert rule is not None and (rule.score, rule.told_as, rule.file) == ("knn", "unknown", "known.npy")
    assert (printed["lesions"], printed["unknown"], printed["threshold"]) == (2, 1, rule.threshold)
    assert read_card(classifier_dir).figures[command.FIGURES]["lesions_lost"] == 0.0, "the fake says the same of all"
    Classifier.open(classifier_dir).close()


def test_a_share_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["unknown", "x", "--manifest", "none.csv", "--lost", "1"]) == ConfigError.exit_code
    assert "--lost 1 is no share between 0 and 1" in capsys.readouterr().err
