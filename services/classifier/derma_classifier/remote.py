"""A classifier away from the exam: crops from a Redis stream, probabilities into the stream of their site.

`python -m derma_classifier.remote --model MODEL`, as many as wanted on as many machines as wanted; `derma serve
classifier` starts and stops them by the backlog.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import closing

from derma_common.cloud.entries import CropJob, JobResult, image_of, pack, unpack
from derma_common.cloud.streams import CLASSIFIERS, Delivery, Line, jobs_key, results_key
from derma_common.errors import InvalidMessage
from derma_common.inference.choice import choice_of
from derma_common.inference.classification import Classifier
from derma_common.preprocess import Image
from derma_common.shipped import model_dir
from derma_common.workers.clock import RedisClock
from derma_common.workers.consumer import Consumer, Taken, Terms
from derma_common.workers.metrics import WorkerMetrics
from derma_common.workers.start import Place, at_least_one, positive, start

TOO_LATE = "deadline"
Job = tuple[CropJob, Image]


class ClassifyCrops:
    """The work: decode, classify what can still be in time, and say of each job how it went."""

    def __init__(self, classifier: Classifier, worker: str, clock: RedisClock, metrics: WorkerMetrics) -> None:
        self._classifier, self._worker, self._clock, self._metrics = classifier, worker, clock, metrics
        self._key = jobs_key(classifier.card.sha256)

    def keys(self, line: Line) -> list[list[str]]:
        """Return the stream of this model's crops."""
        return [[self._key]]

    def open(self, delivery: Delivery) -> Job:
        """Return a job and its crop (h, w, 3) uint8 BGR. Raises InvalidMessage."""
        job: CropJob = unpack(delivery.data, CropJob)
        spec, picture = self._classifier.card.input, job.picture
        if (picture.height, picture.width) != (spec.height, spec.width):
            raise InvalidMessage(
                f"a crop of {picture.width}x{picture.height} px for a network of {spec.width}x{spec.height} px"
            )
        return job, image_of(picture)

    def answer(self, line: Line, taken: Sequence[Taken[Job]]) -> list[tuple[str, bytes]]:
        """Return each job's result; one that is too late gets none of the network's time."""
        now_ms = self._clock.now_ms()
        waited_ns = [max(0, round((now_ms - delivery.at_ms) * 1e6)) for delivery, _ in taken]
        jobs = [job for _, job in taken]
        in_time = [i for i, (job, _) in enumerate(jobs) if waited_ns[i] <= job.within_ns]
        started_ns = time.monotonic_ns()
        rows = dict(zip(in_time, self._classifier.classify([jobs[i][1] for i in in_time]), strict=True))
        took_ns = (time.monotonic_ns() - started_ns) // max(1, len(in_time))
        answers = []
        for i, (job, _) in enumerate(jobs):
            self._metrics.wait.observe(waited_ns[i] / 1e9)
            self._metrics.count("done" if i in rows else "expired")
            probabilities = tuple(float(p) for p in rows[i]) if i in rows else ()
            result = JobResult(
                job.site, job.job, probabilities, self._classifier.card.classes if i in rows else (),
                self._classifier.card.id, self._worker, waited_ns[i], took_ns if i in rows else 0,
                "" if i in rows else TOO_LATE,
            )  # fmt: skip
            answers.append((results_key(job.site), pack(result)))
        return answers


def declare(parser: argparse.ArgumentParser) -> None:
    """Add this worker's arguments."""
    parser.add_argument("--model", help="name of a shipped model or a model's folder; classifier.model of the settings")
    parser.add_argument("--threads", type=at_least_one, default=1, help="CPU threads of one inference")
    parser.add_argument("--count", type=at_least_one, default=8, help="crops taken at once")
    parser.add_argument("--idle", type=positive, default=5.0, help="seconds until a worker's crops are taken over")


def work(place: Place) -> None:
    """Classify until asked to stop."""
    arguments = place.arguments
    model = model_dir(arguments.model or place.settings.classifier.model)
    choice = choice_of(place.settings.classifier, place.settings.run)
    with closing(Classifier.open(model, arguments.threads, choice)) as classifier:
        card = classifier.card
        place.metrics.read(lambda: [("derma_model_info", (card.name, card.sha256, classifier.runner.name), 1)])
        crops = ClassifyCrops(classifier, place.name, RedisClock(place.line.now_ms), place.metrics)
        terms = Terms(CLASSIFIERS, arguments.count, arguments.idle)
        Consumer(place.line, place.name, crops, terms, place.metrics).run(place.stop)


if __name__ == "__main__":
    sys.exit(start("classifier", "job", work, declare))
