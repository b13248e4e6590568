"""Two processes at once, as detector and classifier are: alone, side by side, and side by side under MPS."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from derma_cli.mps import CONTROL, ORDER, Mps
from derma_common.config import load_settings
from derma_common.inference.choice import ONNX, usable
from derma_common.inference.probe import probe


def pair(seconds: float, folder: Path, lacking: dict[str, str]) -> dict[str, Any]:
    """Return p50 and p99 of both networks of the settings in each arrangement; what cannot be, goes into `lacking`."""
    found = {"alone": {**_together(seconds, {}, ("detector",)), **_together(seconds, {}, ("classifier",))}}
    found["side by side"] = _together(seconds, {})
    on_gpu = [name for name, reason in usable(probe(), 0).items() if not reason and name != ONNX]
    if not on_gpu or shutil.which(CONTROL) is None:
        lacking["MPS"] = "no network runs on a GPU" if not on_gpu else f"there is no {CONTROL}"
        return found
    mps = Mps(folder, folder)
    try:
        found["side by side, MPS"] = _together(seconds, mps.environment)
    finally:
        mps.close()
    return found


def _together(
    seconds: float, environment: dict[str, str], kinds: tuple[str, ...] = ("detector", "classifier")
) -> dict[str, Any]:
    """Time the networks of these kinds at the same time, each in a process, with the best runner that it offers."""
    settings = load_settings(None, {})
    children = []
    for kind in kinds:
        model = getattr(settings, kind).model
        command = [sys.executable, "-m", "derma_cli", "models", "bench", model, "--seconds", str(seconds), "--json"]
        environ = os.environ | ORDER | environment
        children.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ)
        )
    found = {}
    for kind, child in zip(kinds, children, strict=True):
        out, _ = child.communicate()
        if child.returncode:
            raise RuntimeError(f"derma models bench ended with status {child.returncode}")
        best = min(json.loads(out)["rows"], key=lambda row: row["p50_ms"])
        found[kind] = {key: best[key] for key in ("runner", "p50_ms", "p99_ms")}
    return found
