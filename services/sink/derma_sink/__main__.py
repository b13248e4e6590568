"""Wiring of the sink process (`python -m derma_sink`), started by `derma up`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import derma_common
from derma_common.addresses import is_live, redacted
from derma_common.inference.card import read_card
from derma_common.launch import Seat, launch
from derma_common.messages import Ack, Findings
from derma_common.rings import RingReader
from derma_common.stage import StageHost
from derma_common.topology import ACKS, FINDINGS, RESULTS
from derma_sink.outbox import OutboxRoom
from derma_sink.outgoing import Outgoing, Triage
from derma_sink.stage import SinkStage
from derma_sink.store import StoreWriter

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def build(seat: Seat) -> StageHost:
    """Open the database and the sockets of the sink."""
    cloud = seat.settings.cloud
    store = StoreWriter(seat.settings.database, seat.plan.run_id, OutboxRoom(cloud.outbox_mb << 20, cloud.when_full))
    seat.closing.callback(store.close)
    classifier = read_card(Path(seat.plan.classifier_dir))
    outgoing = None
    if cloud.redis:
        rings = RingReader(seat.run_dir)
        seat.closing.callback(rings.close)
        outgoing = Outgoing(cloud, rings, Triage(classifier.classes), classifier.crop_margin)
    cameras = seat.settings.camera
    store.begin_run(
        time.time_ns(),
        _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "",
        derma_common.__version__,
        [(c.name, redacted(c.source), is_live(c.source, c.live)) for c in cameras],
        read_card(Path(seat.plan.detector_dir)),
        classifier,
    )
    results = seat.hub.pull(RESULTS)
    acks = seat.hub.publish(ACKS)
    findings = seat.hub.publish(FINDINGS)
    names = [c.name for c in cameras]
    metrics = seat.metrics.sink_only(names, {"data": seat.settings.database.parent, "rings": seat.run_dir})
    stage = SinkStage(store, names, metrics, seat.heartbeat, seat.tracer, outgoing)
    return StageHost(
        stage,
        seat.hub,
        inputs={results: 256},
        routes={Ack: [acks], Findings: [findings]},
        heartbeat=seat.heartbeat,
        metrics=seat.metrics,
        stop=seat.stop,
        alive_fd=seat.alive_fd,
    )


if __name__ == "__main__":
    sys.exit(launch(build))
