"""Second opinions: pictures of lesions from the streams of all sites, an ensemble's statement back to the site.

`python -m derma_cloud.opinion --model A --model B …`. The statement stands beside the edge's, never instead of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import closing

from derma_cloud.ensemble import Ensemble
from derma_cloud.sites import checked_site, keys_by_priority
from derma_common.cloud.entries import LesionPicture, Opinion, image_of, pack, unpack
from derma_common.cloud.streams import Delivery, Line, opinions_key, pictures_key
from derma_common.inference.choice import choice_of
from derma_common.preprocess import Image
from derma_common.shipped import model_dir
from derma_common.workers.consumer import Consumer, Taken, Terms
from derma_common.workers.metrics import WorkerMetrics
from derma_common.workers.start import Place, at_least_one, positive, start

GROUP = "opinion"
Lesion = tuple[LesionPicture, Image]


class GiveOpinions:
    """The work: one opinion a picture."""

    def __init__(self, ensemble: Ensemble, worker: str, metrics: WorkerMetrics) -> None:
        self._ensemble, self._worker, self._metrics = ensemble, worker, metrics

    def keys(self, line: Line) -> list[list[str]]:
        """Return the streams of all sites, suspicious lesions first."""
        return keys_by_priority(line.sites(), pictures_key)

    def open(self, delivery: Delivery) -> Lesion:
        """Return a lesion and its picture (h, w, 3) uint8 BGR. Raises InvalidMessage."""
        lesion: LesionPicture = unpack(delivery.data, LesionPicture)
        checked_site(lesion.site, delivery.key)
        return lesion, image_of(lesion.picture)

    def answer(self, line: Line, taken: Sequence[Taken[Lesion]]) -> list[tuple[str, bytes]]:
        """Return the opinions, each for its site."""
        return [(opinions_key(lesion.site), pack(self._opinion(lesion, image))) for _, (lesion, image) in taken]

    def _opinion(self, lesion: LesionPicture, image: Image) -> Opinion:
        started_ns = time.monotonic_ns()
        row = self._ensemble.probabilities(image)
        self._metrics.count("done")
        return Opinion(
            lesion.site, lesion.run, lesion.camera, lesion.seq, lesion.number,
            {name: float(p) for name, p in zip(self._ensemble.classes, row, strict=True)}, self._ensemble.models,
            self._ensemble.method, self._worker, time.time_ns(), time.monotonic_ns() - started_ns,
        )  # fmt: skip


def declare(parser: argparse.ArgumentParser) -> None:
    """Add this worker's arguments."""
    parser.add_argument("--model", action="append", help="a member of the ensemble; repeat it for more")
    parser.add_argument("--threads", type=at_least_one, default=1, help="CPU threads of one inference")
    parser.add_argument("--count", type=at_least_one, default=4, help="pictures taken at once")
    parser.add_argument("--idle", type=positive, default=60.0, help="seconds until a worker's pictures are taken over")


def work(place: Place) -> None:
    """Give opinions until asked to stop."""
    arguments = place.arguments
    names = arguments.model or [place.settings.classifier.model]
    choice = choice_of(place.settings.classifier, place.settings.run)
    with closing(Ensemble.open([model_dir(name) for name in names], arguments.threads, choice)) as ensemble:
        opinions = GiveOpinions(ensemble, place.name, place.metrics)
        terms = Terms(GROUP, arguments.count, arguments.idle)
        Consumer(place.line, place.name, opinions, terms, place.metrics).run(place.stop)


if __name__ == "__main__":
    sys.exit(start("opinion", "picture", work, declare))
