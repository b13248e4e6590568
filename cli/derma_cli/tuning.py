"""Choose, by measuring this machine, the variant of the shipped detector, threads, and cores.

One thing after the other: the variant first, with the present threads; then all ways to share the cores; then whether
detector and classifiers do better on cores of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from derma_cli.side_by_side import Share, frames_per_s
from derma_cli.toml_edit import Value
from derma_common.inference.card import ModelCard, read_card
from derma_common.settings import Settings
from derma_common.shipped import model_dir, shipped_models

SECONDS = 55.0  # for everything
MOST_WORKERS = 4
LARGEST_LOSS = 0.01  # of AP50, that a quantised variant may have by its card
WORTH = {"variant": 1.10, "pinned": 1.05}  # times as fast as the simpler choice, at least
NEAR = 0.97  # of the fastest: as good, with fewer threads


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured, what was chosen, and why."""

    model: str
    share: Share
    settings: dict[str, Value]
    why: list[str]
    measured: list[tuple[str, Share, float]] = field(default_factory=list)  # detector, share, frames/s

    def as_json(self) -> dict[str, object]:
        """Return the object that `--json` prints."""
        rows = [
            {"detector": model, "detector_threads": s.detector_threads, "classifier_workers": s.workers,
             "classifier_threads": s.classifier_threads, "pinned": s.pinned, "frames_per_s": round(rate, 2)}
            for model, s, rate in self.measured
        ]  # fmt: skip
        return {"settings": self.settings, "why": self.why, "measured": rows}


def shares(cores: int) -> list[Share]:
    """Return the candidates for a number of cores: around half of them for the detector, the rest for classifiers."""
    found = []
    for threads in sorted({max(1, cores // 4), max(1, cores // 2), max(1, 3 * cores // 4), cores}):
        left = max(1, cores - threads)
        for workers in {1, min(MOST_WORKERS, max(1, left // 2)), min(MOST_WORKERS, left)}:
            found.append(Share(threads, workers, max(1, left // workers)))
    return list(dict.fromkeys(found))


def best_of(rates: dict[Share, float]) -> Share:
    """Return the fastest share; of those near it the one with the fewest threads."""
    near = [share for share, rate in rates.items() if rate >= NEAR * max(rates.values())]
    return min(near, key=lambda s: (s.threads, s.workers))


def variants(settings: Settings) -> list[str]:
    """Return the settings' detector and the shipped builds of the same network, the unquantised one first."""
    mine = settings.detector.model
    network = _network(read_card(model_dir(mine)))
    shipped = {directory.name: read_card(directory) for directory in shipped_models()}
    alike = {n: c for n, c in shipped.items() if _network(c) == network and _loss(c) <= LARGEST_LOSS}
    if mine not in alike:  # somebody's own, or one that loses more: theirs to choose
        return [mine]
    return sorted(alike, key=lambda name: ("quantised_from" in alike[name].figures, name))


def _network(card: ModelCard) -> str:
    return str(card.figures.get("quantised_from", card.id))


def _loss(card: ModelCard) -> float:
    """Return the AP50 that a quantised model lost, by its card."""
    if "quantised_from" not in card.figures:
        return 0.0
    return -float(card.figures.get("ap50", {}).get("difference", {}).get("value", float("-inf")))


class Tuning:
    """Measures within a time; each measurement is told as it is made."""

    def __init__(
        self, settings: Settings, cores: Sequence[int], say: Callable[[str], None], seconds: float = SECONDS
    ) -> None:
        """`cores` are those that this process may use."""
        self._settings, self._cores, self._say = settings, cores, say
        self._end_s = time.monotonic() + seconds
        self._left = 0
        self._measured: list[tuple[str, Share, float]] = []
        self._why: list[str] = []

    def run(self) -> Tuned:
        """Measure and choose. Raises ModelError and ResourceError for networks that do not open."""
        models, candidates = variants(self._settings), shares(len(self._cores))
        self._left = len(models) + len(candidates) + 1
        model = self._variant(models)
        rates = {share: self._rate(model, share) for share in candidates}
        share = best_of(rates)
        self._why.append(f"{_words(share)}: {rates[share]:.1f} frames/s; {len(rates)} shares were tried")
        share = self._pinned(model, share, rates[share])
        return Tuned(model, share, self._chosen(models, model, share), self._why, self._measured)

    def _rate(self, model: str, share: Share) -> float:
        now_s = time.monotonic()
        until_s = now_s + max(0.0, self._end_s - now_s) / self._left
        self._left -= 1
        rate = frames_per_s(self._settings, model, share, self._cores, until_s)
        self._measured.append((model, share, rate))
        self._say(f"{model}, {_words(share)}: {rate:.1f} frames/s")
        return rate

    def _variant(self, models: Sequence[str]) -> str:
        d, c = self._settings.detector, self._settings.classifier
        present = Share(d.threads, c.workers, c.threads)
        plain, *others = models
        if not others:
            self._why.append(f"{plain}: there is no shipped variant of it")
            return plain
        rates = {model: self._rate(model, present) for model in models}
        fastest = max(rates, key=lambda model: rates[model])
        worth = rates[fastest] >= WORTH["variant"] * rates[plain]
        chosen = fastest if worth else plain
        told = ", ".join(f"{model} {rate:.1f}" for model, rate in rates.items())
        loss = _loss(read_card(model_dir(chosen)))
        because = f"faster, and loses {loss:.4f} of AP50 by its card" if chosen != plain else "no other is 10 % faster"
        self._why.append(f"{chosen}: {because} (frames/s: {told})")
        return chosen

    def _pinned(self, model: str, free: Share, rate: float) -> Share:
        if free.threads > len(self._cores):
            self._why.append("not pinned: detector and classifiers share cores")
            return free
        pinned = Share(free.detector_threads, free.workers, free.classifier_threads, pinned=True)
        rate_pinned = self._rate(model, pinned)
        worth = rate_pinned >= WORTH["pinned"] * rate
        self._why.append(
            f"{'pinned' if worth else 'not pinned'}: {rate_pinned:.1f} frames/s with it, {rate:.1f} without"
        )
        return pinned if worth else free

    def _chosen(self, models: Sequence[str], model: str, share: Share) -> dict[str, Value]:
        """Return the settings to write; cores only where there are or were any."""
        of_detector, of_classifiers = share.cores(self._cores)
        chosen: dict[str, Value] = {"detector.model": model} if len(models) > 1 else {}
        chosen["detector.threads"] = share.detector_threads
        if of_detector or self._settings.detector.cores:
            chosen["detector.cores"] = of_detector
        chosen |= {"classifier.workers": share.workers, "classifier.threads": share.classifier_threads}
        if of_classifiers or self._settings.classifier.cores:
            chosen["classifier.cores"] = of_classifiers
        return chosen


def _words(share: Share) -> str:
    threads = f"detector {share.detector_threads} threads, classifier {share.workers} x {share.classifier_threads}"
    return f"{threads}, pinned" if share.pinned else threads
