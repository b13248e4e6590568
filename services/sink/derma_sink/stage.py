"""Everything that is known of a frame in, its one durable outcome, an acknowledgement and findings out."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from itertools import islice

import numpy as np

from derma_common.heartbeat import Heartbeat
from derma_common.messages import Ack, Ask, Classifications, Close, Detections, Findings, Message, Torn
from derma_common.seqset import SeqSet
from derma_common.stage import BEAT_S
from derma_common.telemetry import SinkMetrics
from derma_common.tracing import Tracer
from derma_sink import traces
from derma_sink.join import Joins
from derma_sink.outcome import DELIVERED, Outcome, closed, delivered
from derma_sink.outgoing import Outgoing
from derma_sink.store import StoreWriter, TimingRow

ACK_EVERY_NS = 250_000_000
REPORT_EVERY_NS = 200_000_000
CLOSE_AT_ONCE = 4096  # frames of one Close, so that a turn stays short; capture asks again for the rest


class _Camera:
    """What is durable of one camera."""

    def __init__(self, seqs: SeqSet, delivered: int, dropped: dict[str, int]) -> None:
        self.seqs, self.delivered, self.dropped = seqs, delivered, dropped
        self.torn: list[tuple[int, int]] = []

    def count(self, outcome: Outcome) -> None:
        self.seqs.add(outcome.seq)
        if outcome.outcome == DELIVERED:
            self.delivered += 1
        else:
            self.dropped[outcome.reason] = self.dropped.get(outcome.reason, 0) + 1


class SinkStage:
    """Joins, stores, acknowledges and publishes; all that one turn received is one commit."""

    wait_s = BEAT_S

    def __init__(
        self, store: StoreWriter, cameras: Iterable[str], metrics: SinkMetrics, heartbeat: Heartbeat,
        tracer: Tracer | None = None, outgoing: Outgoing | None = None,
    ) -> None:  # fmt: skip
        """`outgoing` is None when nothing leaves the machine."""
        self._tracer, self._outgoing = tracer, outgoing
        self._store, self._metrics, self._heartbeat = store, metrics, heartbeat
        self._joins = Joins()
        self._cameras = {name: _Camera(*store.durable(name)) for name in cameras}
        self._ready: dict[tuple[str, int], Outcome] = {}
        self._timings: list[TimingRow] = []
        self._to_ack: set[str] = set()
        self._acked_ns = self._reported_ns = 0
        self._findings = store.findings()
        self._recent: deque[float] = deque(maxlen=512)  # end-to-end, s
        self.finished = False

    def handle(self, message: Message) -> Iterable[Message]:
        """Take in one message; what it completes is committed at the end of the turn."""
        match message:
            case Detections() | Classifications():
                self._join(message)
            case Close():
                self._close(message)
            case Ask() if message.camera in self._cameras:
                self._to_ack.add(message.camera)
            case Torn() if message.camera in self._cameras:
                self._cameras[message.camera].torn.append((message.seq, message.attempt))
                self._to_ack.add(message.camera)
        return ()

    def _has_outcome(self, camera: str, seq: int) -> bool:
        known = self._cameras.get(camera)
        return known is None or seq in known.seqs or (camera, seq) in self._ready

    def _join(self, message: Detections | Classifications) -> None:
        frame = message.frame if isinstance(message, Detections) else message
        if self._has_outcome(frame.camera, frame.seq):
            self._to_ack |= {frame.camera} & self._cameras.keys()
            return
        join = self._joins.add(message, time.monotonic_ns())
        if join is not None:
            key = (frame.camera, frame.seq)
            self._joins.pop(key)
            self._ready[key] = delivered(join)

    def _close(self, message: Close) -> None:
        camera = self._cameras.get(message.camera)
        if camera is None:
            return
        now_ns = time.monotonic_ns()
        gaps = (gap for first, last in message.ranges for gap in camera.seqs.gaps(first, last))
        for seq in islice((seq for first, last in gaps for seq in range(first, last + 1)), CLOSE_AT_ONCE):
            key = (message.camera, seq)
            if key not in self._ready:
                join = self._joins.pop(key)
                self._ready[key] = closed(*key, message.reason, message.origin, join, now_ns, message.trace)
        self._to_ack.add(message.camera)

    def tick(self, now_ns: int) -> Iterable[Message]:
        """Commit what is ready, then acknowledge and publish it."""
        out: list[Message] = []
        if self._ready or (self._timings and not self._joins):
            out += self._commit()
        if now_ns - self._acked_ns >= ACK_EVERY_NS:
            self._acked_ns = now_ns
            self._to_ack.update(self._cameras)
        out += [self._ack(camera) for camera in sorted(self._to_ack)]
        self._to_ack.clear()
        if now_ns - self._reported_ns >= REPORT_EVERY_NS:
            self._reported_ns = now_ns
            self._report()
        return out

    def _commit(self) -> list[Message]:
        outcomes, self._ready = list(self._ready.values()), {}
        timings, self._timings = self._timings, []
        leaving = [row for outcome in outcomes for row in self._outgoing.rows(outcome)] if self._outgoing else []
        started = time.monotonic_ns()
        self._store.commit(outcomes, timings, leaving)
        durable_ns = time.monotonic_ns()
        self._metrics.commit.observe((durable_ns - started) / 1e9)
        if self._tracer is not None:
            traces.record(self._tracer, outcomes, durable_ns)
        return [self._made_durable(outcome, durable_ns) for outcome in outcomes if self._count(outcome)]

    def _count(self, outcome: Outcome) -> bool:
        """Count a durable outcome; say whether there is anything to publish of it."""
        self._cameras[outcome.camera].count(outcome)
        self._to_ack.add(outcome.camera)
        self._metrics.outcome(outcome.camera, outcome.outcome, outcome.reason)
        return outcome.detections is not None

    def _made_durable(self, outcome: Outcome, durable_ns: int) -> Findings:
        assert outcome.detections is not None
        frame = outcome.detections.frame
        self._findings += len(outcome.lesions)
        self._metrics.findings.labels(outcome.camera).inc(len(outcome.lesions))
        latency_s = (durable_ns - frame.captured_ns) / 1e9
        self._metrics.frame_latency.labels(outcome.camera).observe(latency_s)
        self._recent.append(latency_s)
        if outcome.timing is not None:
            t = outcome.timing
            row: TimingRow = (
                self._store.run, outcome.camera, outcome.seq, frame.capture_wait_ns, frame.capture_service_ns,
                t.detector_wait_ns, t.detector_service_ns, t.classifier_wait_ns, t.classifier_service_ns,
                t.sink_wait_ns, durable_ns - outcome.joined_ns, durable_ns - frame.captured_ns,
            )  # fmt: skip
            self._timings.append(row)
            self._metrics.spent(row[3:11])
        return Findings(outcome.camera, outcome.seq, frame.captured_ns, durable_ns, outcome.outcome, outcome.lesions)

    def _ack(self, name: str) -> Ack:
        camera = self._cameras[name]
        torn, camera.torn = camera.torn, []
        return Ack(name, camera.seqs.ranges, camera.delivered, dict(camera.dropped), tuple(torn))

    def _report(self) -> None:
        p50, p99 = np.percentile(self._recent, (50, 99)) * 1000 if self._recent else (0.0, 0.0)
        self._heartbeat.report(findings=self._findings, p50_ms=round(float(p50), 1), p99_ms=round(float(p99), 1))

    def leave(self) -> None:
        """Commit what is ready and leave."""
        if self._ready or self._timings:
            self._commit()
        if self._timings:
            self._commit()
        self._report()
        self.finished = True
