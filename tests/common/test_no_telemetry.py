"""Nothing leaves the machine by itself: libraries that report to their makers are told not to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

OPEN = """
from derma_common.inference.opening import open_runner
from derma_common.shipped import shipped
open_runner(shipped("models") / "mobilenetv2-skin", "classifier", threads=1)[1].close()
"""


def test_a_network_leaves_no_device_id_and_no_events_to_send(tmp_path: Path) -> None:
    places = ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "ORT_DISABLE_TELEMETRY")
    bare = {name: value for name, value in os.environ.items() if name not in places}
    subprocess.run([sys.executable, "-c", OPEN], env=bare | {"HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.rglob("*")) == []
