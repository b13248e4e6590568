"""`bench/unknowns.py`: kinds of unknown pictures made from lesions and the skin beside them."""

from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench" / "unknowns.py"
SKIN, LESION = 180, 40


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Three pictures: a dark lesion in a corner, one that fills the picture, and one of another split."""
    boxes = {"corner": (0.0, 0.0, 0.4, 0.4), "whole": (0.05, 0.05, 0.95, 0.95), "other": (0.0, 0.0, 0.4, 0.4)}
    with (tmp_path / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("file", "label", "split", "patient_id", "x1", "y1", "x2", "y2"))
        for name, box in boxes.items():
            image = np.full((100, 100, 3), SKIN, dtype=np.uint8)
            left, top, right, bottom = (round(100 * v) for v in box)
            image[top:bottom, left:right] = LESION
            cv2.imwrite(str(tmp_path / f"{name}.png"), image)
            table.writerow((f"{name}.png", "MEL", "train" if name == "other" else "val", f"P-{name}", *box))
    return tmp_path / "labels.csv"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", [str(BENCH), *map(str, arguments)])
    return int(runpy.run_path(str(BENCH))["main"]())


def test_each_kind_shows_what_it_says(labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "strange"
    assert run(monkeypatch, labels, "--where", "split=val", "--name", "phone", "--out", out) == 0
    with (out / "labels.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    kinds = {row["source"]: [other for other in rows if other["source"] == row["source"]] for row in rows}
    assert {name: len(of) for name, of in kinds.items()} == {
        "phone skin": 1, "phone blurred": 2, "phone overexposed": 2, "phone dark": 2,
    }  # fmt: skip
    assert {row["label"] for row in rows} == {"UNK"} and {row["group"] for row in rows} == {"P-corner", "P-whole"}
    skin = cv2.imread(str(out / kinds["phone skin"][0]["file"]))
    assert skin.shape == (60, 60, 3) and (skin == SKIN).all(), "beside the lesion's box, nothing of it"
    corner = {
        kind: cv2.imread(str(out / row["file"])) for kind in kinds for row in kinds[kind] if "corner" in row["group"]
    }
    assert (corner["phone overexposed"] == 255).mean() >= 0.5 and corner["phone dark"].max() < 60
    assert corner["phone blurred"].std() < 0.7 * np.std([SKIN, LESION]), "no edge is left"


def test_only_the_kinds_that_were_asked_for_are_made(
    labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, labels, "--name", "x", "--kind", "skin", "--most", 1, "--out", tmp_path / "strange") == 0
    assert capsys.readouterr().out.split() == ["1", "x", "skin"]


def test_a_table_without_lesions_boxes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.csv").write_text("file,label\na.png,MEL\n")
    assert run(monkeypatch, tmp_path / "labels.csv", "--name", "x", "--out", tmp_path / "strange") == 3
    assert "no row of the table has a lesion's box" in capsys.readouterr().err
