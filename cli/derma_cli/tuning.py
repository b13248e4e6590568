"""Measure detector and classifiers at work side by side, as in a run, for different shares of the cores."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from derma_common.drawn.camera import SyntheticCamera
from derma_common.inference.classification import Classifier
from derma_common.inference.detection import Detector
from derma_common.preprocess import cut
from derma_common.settings import Settings
from derma_common.shipped import model_dir

SECONDS = 45.0  # for all candidates together, beside the opening of networks
CROPS_PER_FRAME = 3  # as in the sample recording; with more, classifiers count for more
MOST_WORKERS = 4


@dataclass(frozen=True, slots=True)
class Share:
    """Threads of the detector, classifier processes, threads of each."""

    detector_threads: int
    workers: int
    classifier_threads: int


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured: frames/s of each share, and the settings of the best."""

    rates: dict[Share, float]

    @property
    def best(self) -> Share:
        """The fastest share; of those within 3 % of it the one with the fewest threads."""
        top = max(self.rates.values())
        near = [share for share, rate in self.rates.items() if rate >= 0.97 * top]
        return min(near, key=lambda s: (s.detector_threads + s.workers * s.classifier_threads, s.workers))

    @property
    def settings(self) -> dict[str, int]:
        """The best share as settings."""
        best = self.best
        return {
            "detector.threads": best.detector_threads, "classifier.workers": best.workers,
            "classifier.threads": best.classifier_threads,
        }  # fmt: skip

    def as_json(self) -> dict[str, object]:
        """Return the object that `--json` prints."""
        rows = [
            {"detector_threads": s.detector_threads, "classifier_workers": s.workers,
             "classifier_threads": s.classifier_threads, "frames_per_s": round(rate, 2)}
            for s, rate in self.rates.items()
        ]  # fmt: skip
        return {"settings": self.settings, "measured": rows}


def shares(cores: int) -> list[Share]:
    """Return the candidates for a number of cores: around half of them for the detector, the rest for classifiers."""
    found = []
    for threads in sorted({max(1, cores // 4), max(1, cores // 2), max(1, 3 * cores // 4), cores}):
        left = max(1, cores - threads)
        for workers in {1, min(MOST_WORKERS, max(1, left // 2)), min(MOST_WORKERS, left)}:
            found.append(Share(threads, workers, max(1, left // workers)))
    return list(dict.fromkeys(found))


def measure(settings: Settings, cores: int, say: Callable[[str], None], seconds: float = SECONDS) -> Tuned:
    """Measure all candidates on drawn pictures, in this process, within about `seconds`. Raises ModelError."""
    candidates = shares(cores)
    rates = {}
    for share in candidates:
        rates[share] = _rate(settings, share, seconds / len(candidates))
        say(
            f"detector {share.detector_threads} threads, classifier {share.workers} x {share.classifier_threads}: "
            f"{rates[share]:.1f} frames/s"
        )
    return Tuned(rates)


def _rate(settings: Settings, share: Share, seconds: float) -> float:
    """Return how many frames/s with CROPS_PER_FRAME lesions both stages get through when they work side by side."""
    image = SyntheticCamera(seed=0, frames=1, width=1280, height=720).frame(0)[0]
    with ExitStack() as closing:
        detector = Detector.open(model_dir(settings.detector.model), share.detector_threads)
        closing.callback(detector.close)
        directory = model_dir(settings.classifier.model)
        classifiers = [Classifier.open(directory, share.classifier_threads) for _ in range(share.workers)]
        for classifier in classifiers:
            closing.callback(classifier.close)
        side = classifiers[0].card.input.width
        crops = [cut(image, (300, 200, 300 + side, 200 + side), side)] * CROPS_PER_FRAME
        works: list[Callable[[], object]] = [partial(detector.detect, image)]
        works += [partial(classifier.classify, crops) for classifier in classifiers]
        frames, *classified = _side_by_side(works, seconds)
    return min(frames, sum(classified))


def _side_by_side(works: Sequence[Callable[[], object]], seconds: float) -> list[float]:
    """Do each work again and again in a thread of its own; return how often each was done in a second."""
    for work in works:
        work()  # the first time of a network is slower
    done = [0.0] * len(works)
    end = time.monotonic() + seconds

    def repeat(index: int) -> None:
        n, started = 0, time.monotonic()
        while time.monotonic() < end:
            works[index]()
            n += 1
        done[index] = n / (time.monotonic() - started)

    threads = [threading.Thread(target=repeat, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done
