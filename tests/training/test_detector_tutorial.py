"""docs/train-a-detector.md is true: its commands run, one after the other, on a set that is tiny."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")

pytestmark = [pytest.mark.train, pytest.mark.slow]

TUTORIAL = Path(__file__).parents[2] / "docs" / "train-a-detector.md"
# each of these stands in the tutorial; what takes its place is quick
SMALLER = {
    "--n 200": "--n 14 --width 160 --height 128",
    "--n 60": "--n 3 --width 160 --height 128",
    "--n 40": "--n 3 --width 160 --height 128",
    "--size 320": "--size 96 --threads 1",
    "--epochs 100": "--epochs 2",
    "--epochs 20": "--epochs 1",
    "--pictures skin": "--pictures skin --threshold 0.001",  # two epochs make nobody sure of anything
}


def commands() -> list[str]:
    """Return the commands of the tutorial's code blocks, made small."""
    blocks = TUTORIAL.read_text(encoding="utf-8").split("```")[1::2]
    lines = [line for block in blocks for line in block.strip().splitlines()]
    for large, small in SMALLER.items():
        assert any(large in line for line in lines), f"the tutorial no longer says {large}"
        lines = [line.replace(large, small) for line in lines]
    return lines


def test_the_tutorials_commands_run_one_after_the_other(tmp_path):
    shm = tempfile.mkdtemp(prefix="derma-test-", dir="/dev/shm")
    environment = {
        **os.environ,
        "DERMA_RUN_SHM_DIR": shm,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    said = {}
    try:
        for line in commands():
            assert line.startswith("derma ")
            done = subprocess.run(
                line.split(), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
            )
            assert done.returncode == 0, f"{line}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
            said[" ".join(line.split()[1:3])] = done.stdout
    finally:
        shutil.rmtree(shm)
    model = tmp_path / "mole-detector"
    assert {"model.onnx", "card.json", "checkpoint.pt", "log.jsonl"} <= {path.name for path in model.iterdir()}
    card = json.loads((model / "card.json").read_text())
    assert card["figures"]["anchors"] and card["figures"]["held_out"]["n_images"] > 0
    assert json.loads(said["train detector"].splitlines()[-1])["model"].startswith("mole-detector-2@")
    assert (tmp_path / "found").is_dir()
