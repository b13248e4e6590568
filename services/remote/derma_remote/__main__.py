"""Wiring of the remote process (`python -m derma_remote`), started by `derma up --classify remote` or `both`."""

from __future__ import annotations

import sys
from pathlib import Path

from derma_common.cloud.access import access_of
from derma_common.cloud.streams import Line
from derma_common.gpu import Row
from derma_common.inference.card import read_card
from derma_common.launch import Seat, launch
from derma_common.messages import Capacity, Classifications, Torn
from derma_common.rings import RingReader
from derma_common.stage import StageHost
from derma_common.telemetry import RemoteMetrics
from derma_common.topology import RESULTS, WORK, detector_of
from derma_remote.courier import Courier
from derma_remote.stage import RemoteStage


def build(seat: Seat) -> StageHost:
    """Open the sockets; the line comes up by itself."""
    cloud = seat.settings.cloud
    access = access_of(cloud)
    card = read_card(Path(seat.plan.classifier_dir))
    rings = RingReader(seat.run_dir)
    seat.closing.callback(rings.close)
    courier = Courier(lambda: Line(access), cloud.site, card.sha256)
    seat.closing.callback(courier.close)
    seat.hub.watch(courier.fd)
    results = seat.hub.push(RESULTS)
    cameras = seat.settings.camera
    detectors = sorted({detector_of(i, seat.settings.detector.workers) for i in range(len(cameras))})
    work = [seat.hub.ask_work(WORK, detector) for detector in detectors]

    def rows() -> list[Row]:
        return [("derma_cloud_connected", (), courier.up), ("derma_cloud_failures_total", (), courier.failures)]

    stage = RemoteStage(
        courier, rings, card, cloud.site, f"{seat.plan.run_id}.{seat.incarnation}", cloud.room, cloud.within_s,
        detectors, RemoteMetrics(seat.metrics, rows),
    )  # fmt: skip
    return StageHost(
        stage, seat.hub, inputs=dict.fromkeys(work, 4),
        routes={Classifications: [results], Capacity: work, Torn: [results]}, heartbeat=seat.heartbeat,
        metrics=seat.metrics, stop=seat.stop, alive_fd=seat.alive_fd,
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(launch(build))
