"""Where the official scorer is: isic-challenge-scoring needs older packages than derma, hence its own Python."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("DERMA_ISIC_PYTHON") or ROOT / ".venv" / "isic" / "bin" / "python")
needs_scorer = pytest.mark.skipif(
    not PYTHON.exists(), reason=f"no isic-challenge-scoring, there is no {PYTHON}: make isic-scorer"
)
