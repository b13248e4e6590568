"""Wiring of a classifier process (`python -m derma_classifier`), started by `derma up` and `derma scale`."""

from __future__ import annotations

import sys
from pathlib import Path

from derma_classifier.stage import ClassifierStage
from derma_common.inference.choice import choice_of
from derma_common.inference.classification import Classifier
from derma_common.inference.runner import pin_of
from derma_common.launch import Seat, launch
from derma_common.messages import Capacity, Classifications, Torn
from derma_common.rings import RingReader
from derma_common.stage import StageHost
from derma_common.topology import RESULTS, WORK, detector_of


def build(seat: Seat) -> StageHost:
    """Open the network and the sockets of one classifier."""
    settings = seat.settings.classifier
    choice = choice_of(settings, seat.settings.run)
    classifier = Classifier.open(Path(seat.plan.classifier_dir), settings.threads, choice)
    seat.closing.callback(classifier.close)
    rings = RingReader(seat.run_dir, pin_of(classifier.runner))
    seat.closing.callback(rings.close)
    results = seat.hub.push(RESULTS)
    cameras = seat.settings.camera
    detectors = sorted({detector_of(i, seat.settings.detector.workers) for i in range(len(cameras))})
    work = [seat.hub.ask_work(WORK, detector) for detector in detectors]
    seat.metrics.model(classifier.card.name, classifier.card.sha256, classifier.runner.name)
    seat.metrics.classifier_only(settings.room)
    return StageHost(
        ClassifierStage(classifier, rings, seat.instance, settings.room, detectors),
        seat.hub,
        inputs=dict.fromkeys(work, 1),
        routes={Classifications: [results], Capacity: work, Torn: [results]},
        heartbeat=seat.heartbeat,
        metrics=seat.metrics,
        stop=seat.stop,
        alive_fd=seat.alive_fd,
        tracer=seat.tracer,
    )


if __name__ == "__main__":
    sys.exit(launch(build))
