"""`make gpu-check` where there is no GPU: one clear line and the exit status that says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from derma_common.errors import ResourceError, error_of
from derma_common.inference.probe import probe

CHECK = Path(__file__).with_name("check.py")


@pytest.mark.skipif(bool(probe().gpus), reason="for machines without a GPU")
def test_without_a_gpu_the_check_says_so_in_one_line():
    done = subprocess.run([sys.executable, str(CHECK)], capture_output=True, text=True, timeout=120, check=False)
    assert error_of(done.returncode) is ResourceError
    assert done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("gpu-check: no GPU can be used here (") and "nothing was checked" in done.stderr
