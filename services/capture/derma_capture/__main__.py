"""Wiring of a capture process (`python -m derma_capture`), one per camera, started by `derma up`."""

from __future__ import annotations

import sys

from derma_capture.live import LiveCapture
from derma_capture.recorded import RecordedCapture
from derma_capture.slots import Slots
from derma_capture.sources import open_live
from derma_capture.stage import CaptureStage
from derma_capture.window import CreditWindow
from derma_common.addresses import is_live
from derma_common.errors import ConfigError
from derma_common.launch import Seat, launch
from derma_common.messages import Ask, Close, Frame
from derma_common.recordings import open_recording
from derma_common.stage import StageHost
from derma_common.topology import ACKS, FRAMES, RESULTS, ROSTER, detector_of
from derma_common.tracing import Head


def build(seat: Seat) -> StageHost:
    """Open the source, the ring and the sockets of one camera."""
    settings = seat.settings
    index, camera = next(((i, c) for i, c in enumerate(settings.camera) if c.name == seat.index), (-1, None))
    if camera is None:
        raise ConfigError(f"the run has no camera {seat.index!r}")
    live = is_live(camera.source, camera.live)
    detector = detector_of(index, settings.detector.workers)
    acks, roster = seat.hub.subscribe(ACKS), seat.hub.subscribe(ROSTER)
    frames, results = seat.hub.push(FRAMES, detector), seat.hub.push(RESULTS)
    slots = Slots(seat.run_dir, camera.name, seat.incarnation)
    seat.closing.callback(slots.close)
    window = CreditWindow(
        camera.name, settings.capture.window_live if live else settings.capture.window, seat.incarnation
    )
    arguments = (
        camera, settings.capture, window, slots, detector, settings.supervisor.poison_deaths, seat.heartbeat,
        seat.metrics, Head(seat.plan.run_id, camera.name, settings.tracing, seat.tracer),
    )  # fmt: skip
    stage: CaptureStage
    if live:
        # a run's only source must be there; among several the others need not suffer for one
        alone = len(settings.camera) == 1
        grabber = open_live(camera, settings.capture, must_open=alone and seat.incarnation == 0)
        seat.closing.callback(grabber.close)
        seat.hub.watch(grabber.wake_fd)
        stage = LiveCapture(grabber, *arguments)
    else:
        stage = RecordedCapture(open_recording(camera.source), *arguments)
    seat.metrics.conservation(lambda: stage.snapshot)
    return StageHost(
        stage,
        seat.hub,
        inputs={acks: 64, roster: 64},
        routes={Frame: [frames], Close: [results], Ask: [results]},
        heartbeat=seat.heartbeat,
        metrics=seat.metrics,
        stop=seat.stop,
        alive_fd=seat.alive_fd,
    )


if __name__ == "__main__":
    sys.exit(launch(build))
