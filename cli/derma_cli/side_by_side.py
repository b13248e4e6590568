"""A detector and its classifiers at work side by side, as in a run: how many frames/s that makes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from derma_common.drawn.camera import SyntheticCamera
from derma_common.inference.choice import choice_of
from derma_common.inference.classification import Classifier
from derma_common.inference.detection import Detector
from derma_common.preprocess import cut
from derma_common.settings import Settings
from derma_common.shipped import model_dir

CROPS_PER_FRAME = 3  # as in the sample recording; with more, classifiers count for more
LEAST_S = 0.5  # of measuring
Work = Callable[[], object]
OpenWork = Callable[[ExitStack], Work]
Job = tuple[OpenWork, Sequence[int]]  # and the cores for it, none: any


@dataclass(frozen=True, slots=True)
class Share:
    """Threads of the detector, classifier processes, threads of each; `pinned`: each stage on cores of its own."""

    detector_threads: int
    workers: int
    classifier_threads: int
    pinned: bool = False

    @property
    def threads(self) -> int:
        """Of all together."""
        return self.detector_threads + self.workers * self.classifier_threads

    def cores(self, available: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the cores of the detector and of the classifiers, none where they are free to move."""
        if not self.pinned:
            return [], []
        return list(available[: self.detector_threads]), list(available[self.detector_threads : self.threads])


def frames_per_s(settings: Settings, detector: str, share: Share, cores: Sequence[int], until_s: float) -> float:
    """Measure, on a drawn picture, until `until_s` of the monotonic clock. Raises ModelError, ResourceError."""
    image = SyntheticCamera(seed=0, frames=1, width=1280, height=720).frame(0)[0]

    def open_detector(closing: ExitStack) -> Work:
        opened = Detector.open(model_dir(detector), share.detector_threads, choice_of(settings.detector, settings.run))
        closing.callback(opened.close)
        return lambda: opened.detect(image)

    def open_classifier(closing: ExitStack) -> Work:
        directory: Path = model_dir(settings.classifier.model)
        opened = Classifier.open(directory, share.classifier_threads, choice_of(settings.classifier, settings.run))
        closing.callback(opened.close)
        side = opened.card.input.width
        crops = [cut(image, (300, 200, 300 + side, 200 + side), side)] * CROPS_PER_FRAME
        return lambda: opened.classify(crops)

    of_detector, of_classifiers = share.cores(cores)
    jobs: list[Job] = [(open_detector, of_detector), *[(open_classifier, of_classifiers)] * share.workers]
    frames, *classified = _side_by_side(jobs, until_s)
    return min(frames, sum(classified))


def _side_by_side(jobs: Sequence[Job], until_s: float) -> list[float]:
    """Do each job in a thread of its own, all at the same time; return how often each was done in a second."""
    together = threading.Barrier(len(jobs))
    with ThreadPoolExecutor(len(jobs)) as pool:
        done = [pool.submit(_repeat, *job, together, until_s) for job in jobs]
    failed = [error for future in done if (error := future.exception())]
    for error in failed:
        if not isinstance(error, threading.BrokenBarrierError):  # that is what the others see of it
            raise error
    return [future.result() for future in done]


def _repeat(open_work: OpenWork, cores: Sequence[int], together: threading.Barrier, until_s: float) -> float:
    with ExitStack() as closing:
        closing.push(lambda kind, *_: together.abort() if kind else None)  # nobody waits for one that failed
        if cores:
            os.sched_setaffinity(0, cores)  # of this thread; those that the network makes begin with the same
        work = open_work(closing)
        work()  # the first time of a network is slower
        together.wait()
        n, started_s = 0, time.monotonic()
        end_s = max(until_s, started_s + LEAST_S)
        while (now_s := time.monotonic()) < end_s:
            work()
            n += 1
        return n / (now_s - started_s)
