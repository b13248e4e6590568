"""Wiring of the detector process (`python -m derma_detector`), started by `derma up`."""

from __future__ import annotations

import sys
from pathlib import Path

from derma_common.inference.card import read_card
from derma_common.inference.choice import choice_of
from derma_common.inference.detection import Detector
from derma_common.inference.runner import pin_of
from derma_common.inference.tiling import Rotation
from derma_common.launch import Seat, launch
from derma_common.messages import Crops, Detections, Torn
from derma_common.rings import RingReader
from derma_common.stage import StageHost
from derma_common.topology import FRAMES, RESULTS, WORK
from derma_detector.stage import DetectorStage


def build(seat: Seat) -> StageHost:
    """Open the network and the sockets of one detector."""
    settings = seat.settings.detector
    frames = seat.hub.pull(FRAMES, seat.instance)
    work = seat.hub.serve_work(WORK, seat.instance, seat.incarnation)
    results = seat.hub.push(RESULTS)
    choice = choice_of(settings, seat.settings.run)
    detector = Detector.open(Path(seat.plan.detector_dir), settings.threads, choice)
    seat.closing.callback(detector.close)
    rings = RingReader(seat.run_dir, pin_of(detector.runner))
    seat.closing.callback(rings.close)
    seat.metrics.model(detector.card.name, detector.card.sha256, detector.runner.name)
    seat.metrics.detector_only(lambda: work.pool.load)
    margin = read_card(Path(seat.plan.classifier_dir)).crop_margin
    threshold = settings.score_threshold if settings.score_threshold >= 0 else None
    tiled = {
        camera.name: Rotation(detector.card.input, camera.tile_px, settings.live_tiles if camera.live else None)
        for camera in seat.settings.camera
        if camera.tile_px
    }
    return StageHost(
        DetectorStage(detector, rings, margin, threshold, tiled, seat.heartbeat.beat),
        seat.hub,
        inputs={work: 1 << 10, frames: 1},  # one frame at a turn, so that workers never wait for two
        routes={Detections: [results], Crops: [work], Torn: [results]},
        heartbeat=seat.heartbeat,
        metrics=seat.metrics,
        stop=seat.stop,
        alive_fd=seat.alive_fd,
        tracer=seat.tracer,
    )


if __name__ == "__main__":
    sys.exit(launch(build))
