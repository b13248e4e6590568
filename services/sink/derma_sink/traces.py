"""The last span of a traced frame: from the moment its messages were joined to its durable outcome."""

from __future__ import annotations

from collections.abc import Iterable

from derma_common.tracing import Tracer, about, is_sampled
from derma_sink.outcome import DROPPED, Outcome

MAX_LINKS = 16  # to frames of the same commit


def record(tracer: Tracer, outcomes: Iterable[Outcome], durable_ns: int) -> None:
    """Record the frames of one commit.

    A span's parent is the detector's (or capture's, for a frame that is closed before it came that far), because
    that is one for each frame; the classifiers' spans that were joined and the frames of the same commit are links.
    """
    traced = [outcome for outcome in outcomes if is_sampled(outcome.trace)]
    spans = [tracer.start("sink", outcome.trace, outcome.joined_ns, _attributes(outcome)) for outcome in traced]
    for outcome, span in zip(traced, spans, strict=True):
        for result in outcome.results:
            span.link(result, "classification")
        for other in [other for other in spans if other is not span][:MAX_LINKS]:
            span.link(other.context, "same commit")
        span.end(durable_ns, f"dropped: {outcome.reason}" if outcome.outcome == DROPPED else "")


def _attributes(outcome: Outcome) -> dict[str, object]:
    attempt = outcome.detections.frame.attempt if outcome.detections else 0
    wait_ns = outcome.timing.sink_wait_ns if outcome.timing else 0
    return about(outcome.camera, outcome.seq, attempt, wait_ns) | {
        "derma.outcome": outcome.outcome, "derma.reason": outcome.reason, "derma.lesions": len(outcome.lesions),
    }  # fmt: skip
