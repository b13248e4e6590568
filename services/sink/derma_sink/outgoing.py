"""What of a durable frame is to leave the machine: its findings, and pictures of lesions for the second opinion."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from derma_common.cloud.entries import pack, picture_of
from derma_common.errors import ConfigError, StaleHandle
from derma_common.messages import Detections
from derma_common.outbox import FINDINGS, PICTURE
from derma_common.preprocess import cut, square_around
from derma_common.rings import RingReader
from derma_common.settings import CloudSettings
from derma_common.taxonomy import find_view
from derma_sink.outcome import DELIVERED, Outcome

log = logging.getLogger(__name__)

SUSPICIOUS, DOUBTFUL, PLAIN = 0, 1, 2  # priorities, first things first
SUSPICIOUS_FROM = 0.3  # of the suspicious live classes together: rather one too many than one too few
UNCERTAIN_BELOW = 0.6  # of the likeliest live class


@dataclass(frozen=True, slots=True)
class OutgoingRow:
    """A row for the outbox."""

    kind: str
    priority: int
    camera: str
    seq: int
    number: int
    picture: bytes | None


class Triage:
    """How soon a lesion should be seen by others, by the live view of the edge classifier's classes."""

    def __init__(self, classes: Sequence[str]) -> None:
        live = find_view("live")
        self._suspicious = np.array(["suspicious" in name for name in live.classes])
        self._unknown = live.classes.index("unknown")
        try:
            self._membership = live.membership(classes)
        except ConfigError as error:  # a user's own classes: what derma cannot judge is doubtful
            log.warning("no lesion will go first or last: %s", error)
            self._membership = np.zeros((len(classes), len(live.classes)))

    def priority(self, probabilities: Iterable[float]) -> int:
        """Return the priority of a lesion with these probabilities, empty when it was not classified."""
        row = np.fromiter(probabilities, dtype=np.float64)
        shares = row @ self._membership if len(row) == len(self._membership) else np.zeros(len(self._suspicious))
        top = int(np.argmax(shares))
        if shares[self._suspicious].sum() >= SUSPICIOUS_FROM:
            return SUSPICIOUS
        return DOUBTFUL if top == self._unknown or shares[top] < UNCERTAIN_BELOW else PLAIN


class Outgoing:
    """Makes the outbox rows of outcomes that become durable."""

    def __init__(self, settings: CloudSettings, rings: RingReader, triage: Triage, margin: float) -> None:
        """`margin` is the classifier card's `crop_margin`."""
        self._settings, self._rings, self._triage, self._margin = settings, rings, triage, margin
        self._pictured_ns: dict[str, int] = {}  # camera → capture time of the frame that last gave pictures
        self.stale = 0  # pictures that were gone before they could be cut

    def rows(self, outcome: Outcome) -> list[OutgoingRow]:
        """Return the rows of one frame; none when nothing was found in it."""
        if outcome.outcome != DELIVERED or outcome.detections is None or not outcome.lesions:
            return []
        priorities = [self._triage.priority(lesion.probabilities.values()) for lesion in outcome.lesions]
        rows = [OutgoingRow(FINDINGS, min(priorities), outcome.camera, outcome.seq, -1, None)]
        wanted = [number for number, priority in enumerate(priorities) if self._wants(priority)]
        if wanted and self._is_due(outcome, outcome.detections):
            rows += self._pictures(outcome, outcome.detections, wanted, priorities)
        return rows

    def _wants(self, priority: int) -> bool:
        pictures = self._settings.pictures
        return pictures == "all" or (pictures == "doubtful" and priority < PLAIN)

    def _is_due(self, outcome: Outcome, detections: Detections) -> bool:
        """Whether a frame may give pictures: every file of a folder may, a video now and then."""
        if outcome.origin:
            return True
        captured_ns = detections.frame.captured_ns
        last_ns = self._pictured_ns.get(outcome.camera)
        if last_ns is not None and abs(captured_ns - last_ns) < self._settings.picture_every_s * 1e9:
            return False
        self._pictured_ns[outcome.camera] = captured_ns
        return True

    def _pictures(
        self, outcome: Outcome, detections: Detections, wanted: list[int], priorities: list[int]
    ) -> list[OutgoingRow]:
        px, encoding = self._settings.picture_px, self._settings.picture_encoding
        try:
            with self._rings.picture(detections.frame.handle) as image:
                cuts = [cut(image, square_around(outcome.lesions[n].box, self._margin), px) for n in wanted]
        except StaleHandle:
            self.stale += len(wanted)
            return []
        return [
            OutgoingRow(PICTURE, priorities[n], outcome.camera, outcome.seq, n, pack(picture_of(image, encoding)))
            for n, image in zip(wanted, cuts, strict=True)
        ]
