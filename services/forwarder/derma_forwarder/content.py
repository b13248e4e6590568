"""From a row of the outbox to the entry that travels; what cannot become one is said of that row alone."""

from __future__ import annotations

from derma_common.cloud.entries import FrameFindings, LesionPicture, Picture, SentLesion, pack, unpack
from derma_common.cloud.streams import findings_key, pictures_key
from derma_common.errors import InvalidMessage
from derma_common.outbox import FINDINGS, Outbox, Waiting
from derma_common.store import StoreReader


class Unsendable(Exception):
    """A row whose content is not there or not what it should be."""


class Content:
    """Reads the content of rows from the store."""

    def __init__(self, store: StoreReader, outbox: Outbox, site: str) -> None:
        self._store, self._outbox, self._site = store, outbox, site

    def stream(self, row: Waiting) -> str:
        """Return the stream that a row goes to."""
        return (findings_key if row.kind == FINDINGS else pictures_key)(self._site, row.priority)

    def entry(self, row: Waiting) -> bytes:
        """Return a row's entry. Raises Unsendable."""
        frame = self._store.frame(row.run, row.camera, row.seq)
        if frame is None:
            raise Unsendable("its frame is not in the store")
        try:
            found = list(self._store.findings(row.run, row.camera, row.seq))
            if row.kind == FINDINGS:
                lesions = tuple(
                    SentLesion(f.number, f.box, f.score, f.probabilities, f.classifier, f.missing) for f in found
                )
                return pack(
                    FrameFindings(
                        self._site, row.run, row.camera, row.seq, frame.wall_ns, frame.width, frame.height,
                        frame.outcome, frame.reason, found[0].detector if found else "", frame.derma_version,
                        row.priority, lesions,
                    )
                )  # fmt: skip
            finding = found[row.number]
            picture: Picture = unpack(self._outbox.picture(row), Picture)
        except (InvalidMessage, ValueError, IndexError) as error:
            raise Unsendable(f"{type(error).__name__}: {error}") from error
        return pack(
            LesionPicture(
                self._site, row.run, row.camera, row.seq, row.number, frame.wall_ns, row.priority,
                finding.classifier, finding.probabilities, picture,
            )
        )  # fmt: skip
