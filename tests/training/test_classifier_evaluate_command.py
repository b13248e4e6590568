"""`derma evaluate classifier`: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.isic import PYTHON, needs_scorer
from support.painted import CLASSES, grey_network, paint_table

from derma_common.inference.card import read_card
from derma_common.preprocess import softmax
from derma_training.classifier.__main__ import main
from derma_training.classifier.evaluation import measure
from derma_training.classifier.metrics import balanced_accuracy
from derma_training.classifier.metrics_binary import COLUMNS, class_table

LABELS = ["benign", "melanoma", "melanoma", "benign", "unknown"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return paint_table(tmp_path / "pictures", ["NV"] * 5, [{"label": label, "sex": "f"} for label in LABELS])


def test_the_document_has_its_keys(table: Path, classifier_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--labels", str(table), "--model", str(classifier_dir), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    chance = softmax(np.asarray([[1.0, 2.0, 0.0]], dtype=np.float32))[0]
    assert document["n"] == 5 and document["model"] == read_card(classifier_dir).id
    assert document["accuracy"] == 0.4  # the fake says melanoma of everything
    assert document["bma"] == pytest.approx(1 / 3, abs=1e-4)
    assert document["macro_auc"] == 0.5
    assert document["ece"] == pytest.approx(chance[1] - 0.4, abs=1e-4)
    assert {"n", "called", "recall", *COLUMNS} == set(document["classes"]["melanoma"])
    assert document["by"]["sex"]["f"]["n"] == 5


def test_the_figures_are_printed_for_people(
    table: Path, classifier_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--labels", str(table), "--model", str(classifier_dir), "--draws", "10"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"accuracy 0\.400 \[0\.\d+, \d\.\d+\]  bma 0\.333", said)
    assert re.search(r"^melanoma +2 +5 +1\.000", said, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--labels", "nowhere.csv"], 2, "nowhere.csv cannot be read"),
        (["--model", "nowhere"], 4, "there is no model 'nowhere'"),
        (["--where", "split=val"], 2, "no column 'split'"),
        (["--view", "seven"], 2, "there is no view 'seven'"),
        (["--priors", "rescale"], 2, "no class_counts"),
        (["--readers", "nowhere.csv"], 2, "nowhere.csv cannot be read"),
        (["--images", "nowhere"], 3, "5 of 5 pictures cannot be read"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_an_exit_status(
    table: Path, classifier_dir: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    usual = ["--labels", str(table), "--model", str(classifier_dir), "--draws", "0"]
    given = [*usual, *arguments] if arguments[0] != "--model" else [*usual[:2], *arguments]
    assert main(["evaluate", *given]) == status
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_figures_are_written_on_the_models_card(table: Path, classifier_dir: Path) -> None:
    arguments = ["evaluate", "--labels", str(table), "--model", str(classifier_dir), "--draws", "10"]
    assert main([*arguments, "--write", "painted"]) == 0
    found = read_card(classifier_dir).figures["painted"]
    assert found["accuracy"] == 0.4 and found["classes"]["melanoma"]["recall"] == 1.0
    assert found["measured"]["labels"] == "pictures/labels.csv"


@pytest.fixture
def grey(monkeypatch: pytest.MonkeyPatch) -> None:
    network = grey_network(sharpness=0.5)
    monkeypatch.setattr(measure, "open_network", lambda name, threads: network)


def test_predictions_and_a_report_in_one_file_are_written(tmp_path: Path, grey: None) -> None:
    pytest.importorskip("matplotlib", reason="needs the bench extra: pip install 'derma[bench]'")
    shown, labels = [*CLASSES, *CLASSES], [*CLASSES, *CLASSES[1:], "MEL"]
    table = paint_table(tmp_path, shown, [{"label": label, "sex": "<b>"} for label in labels])
    readers = tmp_path / "readers.csv"
    readers.write_text("name,sensitivity,specificity,target\nA,.8,.7,\nB,.6,.9,MEL\n")
    report = tmp_path / "report"
    arguments = ["--labels", str(table), "--report", str(report), "--readers", str(readers), "--draws", "10", "--json"]
    assert main(["evaluate", *arguments]) == 0
    page = (report / "report.html").read_text()
    assert page.count('<img alt="') == 9  # confusion, ROC, PR, two of readers, two of calibration, panels, t-SNE
    assert set(re.findall(r'(?:src|href)="([^"]{10})', page)) == {"data:image"}
    assert "&lt;b&gt;" in page and "<b>" not in page
    assert json.loads((report / "figures.json").read_text())["n"] == 18
    with (report / "predictions.csv").open(newline="") as stream:
        predictions = list(csv.DictReader(stream))
    assert [(p["truth"], p["answer"]) for p in predictions] == list(zip(labels, shown, strict=True))
    assert sum(float(predictions[0][name]) for name in CLASSES) == pytest.approx(1.0)


def test_a_report_without_matplotlib_is_refused_before_any_work(tmp_path: Path, table: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "matplotlib.py").write_text("raise ImportError")
    command = [sys.executable, "-m", "derma_training.classifier", "evaluate", "--labels", str(table)]
    done = subprocess.run(
        [*command, "--report", str(tmp_path / "report")],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "hidden")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 5
    assert done.stderr == "derma: a report's figures need matplotlib: pip install 'derma[bench]'\n"


def test_the_command_needs_no_torch(table: Path, classifier_dir: Path) -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'timm', 'onnx')));"
        "from derma_training.classifier.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["evaluate", "--labels", str(table), "--model", str(classifier_dir), "--draws", "0", "--json"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 5


def test_a_submission_has_the_challenges_columns_whatever_was_scored(tmp_path: Path, grey: None) -> None:
    table = paint_table(tmp_path, ["MEL", "AK", "SCC"], [{"label": label} for label in ("MEL", "AKIEC", "AKIEC")])
    assert main(["evaluate", "--labels", str(table), "--draws", "0", "--submission", str(tmp_path / "s.csv")]) == 0
    rows = list(csv.reader((tmp_path / "s.csv").read_text().splitlines()))
    assert rows[0] == ["image", *CLASSES] and [row[0] for row in rows[1:]] == ["p000", "p001", "p002"]
    assert [CLASSES[int(np.argmax([float(v) for v in row[1:]]))] for row in rows[1:]] == ["MEL", "AK", "SCC"]


@needs_scorer
def test_the_official_scorer_reads_a_submission_and_says_the_same(tmp_path: Path, grey: None) -> None:
    rng = np.random.default_rng(0)
    shown = [CLASSES[i] for i in rng.integers(0, 9, 60)]
    labels = [name if rng.random() < 0.6 else CLASSES[rng.integers(9)] for name in shown]
    table = paint_table(tmp_path, shown, [{"label": label} for label in labels])
    submission, truth_file = tmp_path / "submission.csv", tmp_path / "truth.csv"
    assert main(["evaluate", "--labels", str(table), "--draws", "0", "--submission", str(submission)]) == 0
    truth = np.asarray([CLASSES.index(label) for label in labels])
    with truth_file.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["image", *CLASSES])
        rows.writerows([f"p{n:03}", *(float(c == t) for c in range(9))] for n, t in enumerate(truth))
    command = [str(PYTHON), "-m", "isic_challenge_scoring", "-o", "json", "classification"]
    done = subprocess.run([*command, str(truth_file), str(submission)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    official = json.loads(done.stdout)
    with submission.open(newline="") as stream:
        probabilities = np.asarray([[float(row[name]) for name in CLASSES] for row in csv.DictReader(stream)])
    wanted = balanced_accuracy(probabilities, truth)
    assert official["aggregate"]["balanced_accuracy"] == pytest.approx(wanted, abs=1e-12)
    table_of = class_table(probabilities, truth)
    for column in COLUMNS:
        theirs = official["macro_average"]["auc_sens_80" if column == "auc80" else column]
        assert table_of[column].mean() == pytest.approx(theirs, abs=1e-12)
