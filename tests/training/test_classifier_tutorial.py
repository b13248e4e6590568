"""The tutorial's commands, run as they stand there on a tiny drawn set."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

for needed in ("torch", "timm", "onnx"):
    pytest.importorskip(needed, reason="needs the train extra: pip install 'derma[train]'")

from derma_common.inference.card import read_card  # noqa: E402
from derma_training.classifier.manifest import read_manifest  # noqa: E402
from derma_training.classifier.prepare.distractors import draw  # noqa: E402

pytestmark = [pytest.mark.train, pytest.mark.slow]

TUTORIAL = Path(__file__).parents[2] / "docs" / "train-a-classifier.md"
BENCH = Path(__file__).parents[2] / "bench"
DERMA = Path(sys.executable).with_name("derma")


def commands() -> list[str]:
    """Return the lines of the tutorial's `sh` blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def my_pictures(folder: Path) -> None:
    """Draw what a user may bring: pictures of two classes, two of each patient, and labels.csv."""
    folder.mkdir()
    lines = ["file,label,group,licence"]
    for i in range(48):
        kind, label = (("skin", "nevus"), ("cloth", "melanoma"))[i // 2 % 2]
        cv2.imwrite(str(folder / f"{i:04}.jpg"), draw(kind, (i,)))
        lines.append(f"{i:04}.jpg,{label},patient-{i // 2},CC-BY-4.0")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def test_the_tutorial_runs_from_a_folder_to_findings(tmp_path: Path, run_dir: Path) -> None:
    my_pictures(tmp_path / "my-pictures")
    verbs = [" ".join(command.split()[1:3]) for command in commands()]
    assert verbs[:3] == ["data prepare", "train classifier", "evaluate classifier"] and verbs[3].startswith("up ")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DERMA_RUN_SHM_DIR": str(run_dir)}
    for command in commands():
        line = re.sub(r"^derma\b", str(DERMA), command)
        done = subprocess.run(
            line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    manifest = read_manifest(tmp_path / "prepared" / "manifest.csv")
    assert manifest.classes == ("melanoma", "nevus") and len(manifest.rows) == 48
    card = read_card(tmp_path / "runs" / "trial" / "model")
    assert card.name == "trial" and card.classes == manifest.classes and card.licence.startswith("CC-BY-4.0")
    listed = subprocess.run(
        [str(DERMA), "findings", "--json"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    findings = [json.loads(line) for line in listed.stdout.splitlines()]
    assert findings and all(card.id in json.dumps(one) for one in findings)


def test_every_option_and_layout_that_the_tutorial_names_exists() -> None:
    text = TUTORIAL.read_text(encoding="utf-8")
    words = (["data", "prepare"], ["train", "classifier"], ["evaluate", "classifier"], ["up"])
    programs = [[str(DERMA), *said] for said in words]
    programs += [[sys.executable, "-m", "derma_training.classifier", verb] for verb in ("average", "unknown", "folds")]
    programs += [[sys.executable, str(BENCH / name)] for name in ("classifiers.py", "unknowns.py")]
    helps = "".join(
        subprocess.run([*command, "--help"], capture_output=True, text=True, check=True, timeout=120).stdout
        for command in programs
    )
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert named and not {option for option in named if option not in helps}
    layouts = re.findall(r"^\| (`[^|]*) \|", text.split("## Known data sets")[1], re.MULTILINE)
    known = {name for cell in layouts for name in re.findall(r"`([^`]+)`", cell)}
    assert len(known) >= 13 and not {name for name in known if name not in helps}
