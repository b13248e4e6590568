"""Wiring of the forwarder process (`python -m derma_forwarder`), started by `derma up` when a cloud is configured."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from derma_common.errors import ResourceError
from derma_common.launch import Seat, launch
from derma_common.outbox import Waiting
from derma_common.stage import StageHost
from derma_common.telemetry import ForwarderMetrics
from derma_forwarder.stage import ForwarderStage
from derma_forwarder.wiring import open_forwarder

_STORE_WITHIN_S = 30.0  # the sink makes the database


def build(seat: Seat) -> StageHost:
    """Open the outbox; the line comes up in the first turn."""
    _wait_for(seat.settings.database)
    stages: list[ForwarderStage] = []  # made below, read at scrapes
    metrics = ForwarderMetrics(seat.metrics, lambda: stages[0].rows if stages else ())

    def delay(row: Waiting) -> None:
        metrics.delay.observe(max(0, time.time_ns() - row.queued_wall_ns) / 1e9)

    forwarder, outbox = open_forwarder(seat.settings, seat.closing, delay)
    stages.append(ForwarderStage(forwarder, outbox, seat.settings.cloud.outbox_mb << 20))
    return StageHost(
        stages[0], seat.hub, inputs={}, routes={}, heartbeat=seat.heartbeat, metrics=seat.metrics, stop=seat.stop,
        alive_fd=seat.alive_fd,
    )  # fmt: skip


def _wait_for(database: Path) -> None:
    deadline = time.monotonic() + _STORE_WITHIN_S
    while not database.exists():
        if time.monotonic() > deadline:
            raise ResourceError(f"the sink did not make {database} within {_STORE_WITHIN_S:g} s")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(launch(build))
