"""`make gpu-check`: whether derma's GPU path works on this machine; names what is not available.

    python tests/gpu/check.py [arguments for pytest]

Exit status 5 where no GPU can be used, 1 where something failed, 0 where all passed. The tests are those of this folder
and the contract of all runners; in `make test` they are skipped on a machine without a GPU, here nothing may be.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from derma_common.errors import ResourceError
from derma_common.inference.choice import ONNX, usable
from derma_common.inference.probe import probe

HERE = Path(__file__).parent
CONTRACT = HERE.parent / "common" / "test_runner_contract.py"


def main() -> int:
    """Say what there is, run the tests, return the exit status."""
    report = probe()
    if not report.gpus:
        print(
            f"gpu-check: no GPU can be used here ({'; '.join(report.problems)}); nothing was checked", file=sys.stderr
        )
        return ResourceError.exit_code
    for gpu in report.gpus:
        print(f"gpu-check: GPU {gpu.index} {gpu.name}, SM {gpu.sm}, CUDA {report.driver}, {report.tensorrt}")
    for runner, reason in usable(report, 0).items():
        if runner != ONNX:
            print(f"gpu-check: {runner}: {reason or 'available'}")
    command = [sys.executable, "-m", "pytest", str(HERE), str(CONTRACT), *sys.argv[1:]]
    return int(subprocess.run(command, env=os.environ | {"GPU_PROMISED": "1"}, check=False).returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
