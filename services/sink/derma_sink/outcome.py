"""A frame's one outcome, with its findings and its times, as it is written and published."""

from __future__ import annotations

from dataclasses import dataclass

from derma_common.messages import Detections, FoundLesion
from derma_common.tracing import is_sampled
from derma_sink.join import Join

DELIVERED, DROPPED = "delivered", "dropped"
# reasons for which a frame whose boxes have come is still a result
_WITH_WHAT_CAME = frozenset({"deadline"})


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a frame spent its time, ns; classifier times are None for a frame without crops."""

    detector_wait_ns: int
    detector_service_ns: int
    classifier_wait_ns: int | None
    classifier_service_ns: int | None
    sink_wait_ns: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything about a frame that becomes durable at once."""

    camera: str
    seq: int
    outcome: str
    reason: str
    origin: str
    detections: Detections | None
    lesions: tuple[FoundLesion, ...]
    classifiers: tuple[str, ...]  # model id per lesion, "" when not classified
    timing: Timing | None
    joined_ns: int
    trace: bytes = b""
    results: tuple[bytes, ...] = ()  # contexts of the classifications, when the frame is traced


def delivered(join: Join, reason: str = "") -> Outcome:
    """Return the outcome of a frame that is a result, complete or closed with what has come."""
    return _outcome(join, DELIVERED, reason)


def closed(
    camera: str, seq: int, reason: str, origin: str, join: Join | None, now_ns: int, trace: bytes = b""
) -> Outcome:
    """Return the outcome of a frame that capture closes.

    After a deadline the boxes that have come are a result; else the frame is dropped, but boxes that
    are known stay as findings that say what is missing.
    """
    if join is None or join.detections is None:
        return Outcome(camera, seq, DROPPED, reason, origin, None, (), (), None, now_ns, trace)
    return _outcome(join, DELIVERED if reason in _WITH_WHAT_CAME else DROPPED, reason)


def _outcome(join: Join, outcome: str, reason: str) -> Outcome:
    detections = join.detections
    assert detections is not None
    lesions, models = [], []
    for i, (box, score) in enumerate(zip(detections.boxes, detections.scores, strict=True)):
        result, row = join.rows.get(i, (None, ()))
        probabilities = dict(zip(result.classes, row, strict=True)) if result else {}
        lesions.append(FoundLesion(box, score, probabilities, "" if result else (reason or "unknown")))
        models.append(result.model if result else "")
    frame = detections.frame
    return Outcome(
        frame.camera, frame.seq, outcome, reason, frame.origin, detections, tuple(lesions), tuple(models),
        _timing(join, detections), join.last_ns, frame.trace, _results(join) if is_sampled(frame.trace) else (),
    )  # fmt: skip


def _results(join: Join) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(result.trace for result, _ in join.rows.values() if is_sampled(result.trace)))


def _timing(join: Join, detections: Detections) -> Timing:
    results = [result for result, _ in join.rows.values()]
    wait = service = None
    done_ns = detections.done_ns
    if results:
        started_ns = min(r.started_ns for r in results)
        wait = started_ns - min(r.queued_ns for r in results)
        done_ns = max(done_ns, *(r.done_ns for r in results))
        service = done_ns - started_ns
    return Timing(
        detections.started_ns - detections.frame.sent_ns,
        detections.done_ns - detections.started_ns,
        wait,
        service,
        join.last_ns - done_ns,
    )
