"""The metrics contract: each metric's name, type, labels and meaning, and the page that shows them.

What a dashboard or an alert may rely on. `telemetry.py` makes every metric from these lines and no other.
"""

from __future__ import annotations

from dataclasses import dataclass

from derma_common.topology import PIPELINE, Service

OBJECTIVE_S = 0.25  # the end-to-end objective is a bucket edge
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, OBJECTIVE_S, 0.5, 1.0, 2.5, 5.0, 10.0)
STAGES = tuple(service.value for service in PIPELINE)
SERVICES = tuple(service.value for service in Service)
PARTS = tuple((stage, part) for stage in STAGES for part in ("wait", "service"))
REASONS = ("busy", "deadline", "poison", "unreadable", "capture_restart")  # why frames are dropped
GIVEN_UP = ("full", "too_old", "by_hand", "stale")  # why entries of the outbox never left
ENTRY_KINDS = ("findings", "picture", "job")
ENTRY_OUTCOMES = ("done", "expired", "invalid", "poison")  # the last two became dead letters
REMOTE_RESULTS = ("answered", "late", "failed", "taken_back")
CAMERA_STATES = ("reading", "silent", "ended")

# every label and the values that it may take; the length of these lists bounds the number of series
LABELS: dict[str, str] = {
    "stage": ", ".join(SERVICES),
    "worker": "an instance's name, such as `classifier.0`",
    "camera": "a configured camera's alias",
    "part": "wait, service",
    "outcome": "of frames: delivered, dropped; of entries: " + ", ".join(ENTRY_OUTCOMES),
    "reason": "of frames: empty, " + ", ".join(REASONS) + ", other; of entries: " + ", ".join(GIVEN_UP),
    "state": "of frames: captured, delivered, dropped, in_flight; of slots: free, held; of workers: wanted, ready; "
    "of entries: waiting, quarantined; "
    "of cameras: " + ", ".join(CAMERA_STATES),
    "place": "data (database and logs), rings (pictures in shared memory)",
    "name": "a model's name",
    "sha256": "of the model's file",
    "runner": "what runs the model's file",
    "version": "of derma",
    "kind": "of what leaves the machine: " + ", ".join(ENTRY_KINDS),
    "result": "of a crop sent to a remote classifier: " + ", ".join(REMOTE_RESULTS),
    "gpu": "the GPU's index",
    "le": "bucket edges, s: " + ", ".join(f"{edge:g}" for edge in BUCKETS) + ", +Inf",
}


_UNITS = {
    "seconds": "s", "bytes": "B", "ratio": "0…1", "celsius": "°C", "watts": "W", "info": "always 1", "live": "0 or 1",
    "connected": "0 or 1",
    "state": "0 or 1", "fds": "file descriptors",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric. `by` says which processes export it."""

    name: str
    kind: str  # counter, gauge or histogram
    labels: tuple[str, ...]
    by: str
    meaning: str

    @property
    def unit(self) -> str:
        """The unit that the name ends in."""
        word = self.name.removesuffix("_total").rsplit("_", 1)[1]
        return _UNITS.get(word, word)


CONTRACT: tuple[Spec, ...] = (
    Spec("derma_stage_wait_seconds", "histogram", ("stage",), "every service",
         "Time from the sending of a message to the start of work on it; capture: waiting for a credit."),
    Spec("derma_stage_service_seconds", "histogram", ("stage",), "every service",
         "Time of a stage's work on one message; capture: reading a picture and writing it into the ring."),
    Spec("derma_invalid_messages_total", "counter", ("stage",), "every service",
         "Messages that did not follow the wire format and were thrown away."),
    Spec("derma_stale_handles_total", "counter", ("stage",), "every service",
         "Pictures that were gone or overwritten when they were to be read."),
    Spec("derma_model_info", "gauge", ("name", "sha256", "runner"), "detector, classifier",
         "The network file that a process serves."),
    Spec("derma_process_cpu_seconds_total", "counter", (), "every process", "User and system CPU time."),
    Spec("derma_process_resident_memory_bytes", "gauge", (), "every process", "Resident memory."),
    Spec("derma_process_virtual_memory_bytes", "gauge", (), "every process", "Virtual memory."),
    Spec("derma_process_start_time_seconds", "gauge", (), "every process", "Start of the process, since 1970."),
    Spec("derma_process_open_fds", "gauge", (), "every process", "Open file descriptors."),
    Spec("derma_process_max_fds", "gauge", (), "every process", "File descriptors that may be open."),
    Spec("derma_frames", "gauge", ("camera", "state", "reason"), "capture",
         "A camera's frames by state, one snapshot: captured = delivered + dropped (all reasons) + in_flight."),
    Spec("derma_credits", "gauge", ("camera",), "capture", "Frames of a camera that may be in flight at once."),
    Spec("derma_ring_slots", "gauge", ("camera", "state"), "capture", "Slots of a camera's rings."),
    Spec("derma_picture_age_seconds", "gauge", ("camera",), "capture", "Age of the oldest frame in flight."),
    Spec("derma_camera_state", "gauge", ("camera", "state"), "capture", "1 for the state that the camera is in."),
    Spec("derma_camera_live", "gauge", ("camera",), "capture", "1 when the source does not wait for the pipeline."),
    Spec("derma_camera_silence_seconds", "gauge", ("camera",), "capture",
         "Time since a live source last gave a picture."),
    Spec("derma_pending_crops", "gauge", (), "detector", "Crops that wait for a classifier with room."),
    Spec("derma_outstanding_crops", "gauge", (), "detector", "Crops that classifiers hold."),
    Spec("derma_offered_room_crops", "gauge", (), "detector", "Crops that classifiers may hold, as they stated."),
    Spec("derma_worker_room_crops", "gauge", (), "classifier", "Crops that may be outstanding at this worker."),
    Spec("derma_frame_latency_seconds", "histogram", ("camera",), "sink",
         "End to end: picture captured to findings durable."),
    Spec("derma_frame_stage_seconds_total", "counter", ("stage", "part"), "sink",
         "Where durable frames spent their time, summed over frames; what capture spends on a recording comes before "
         "the picture counts as captured."),
    Spec("derma_frame_outcomes_total", "counter", ("camera", "outcome", "reason"), "sink",
         "Frames given their outcome."),
    Spec("derma_findings_total", "counter", ("camera",), "sink", "Findings made durable."),
    Spec("derma_commit_seconds", "histogram", (), "sink", "Time of one database commit."),
    Spec("derma_storage_free_bytes", "gauge", ("place",), "sink", "Room left where a run keeps its things."),
    Spec("derma_storage_size_bytes", "gauge", ("place",), "sink", "Size of the file system of a place."),
    Spec("derma_cloud_connected", "gauge", (), "forwarder, remote, cloud workers", "1 while the line to Redis is up."),
    Spec("derma_cloud_failures_total", "counter", (), "forwarder, remote, cloud workers", 
         "How often the line to Redis was found down."),
    Spec("derma_outbox_entries", "gauge", ("kind", "state"), "forwarder",
         "Entries that wait, and that were set aside."),
    Spec("derma_outbox_backlog_bytes", "gauge", ("kind",), "forwarder", "Bytes of pictures that wait."),
    Spec("derma_outbox_limit_bytes", "gauge", (), "forwarder", "Bytes of pictures that may wait."),
    Spec("derma_outbox_oldest_seconds", "gauge", (), "forwarder", "How long the oldest entry has waited; 0 for none."),
    Spec("derma_outbox_sent_total", "counter", ("kind",), "forwarder", "Entries that Redis has taken."),
    Spec("derma_outbox_given_up_total", "counter", ("kind", "reason"), "forwarder",
         "Entries that will never leave, since the database was made."),
    Spec("derma_outbox_delay_seconds", "histogram", (), "forwarder", "From durable here to taken by Redis."),
    Spec("derma_opinions_total", "counter", (), "forwarder", "Second opinions that came back."),
    Spec("derma_remote_crops_total", "counter", ("result",), "remote", "Crops that were sent to remote classifiers."),
    Spec("derma_remote_seconds", "histogram", (), "remote", "From a crop's sending to its answer."),
    Spec("derma_entries_total", "counter", ("kind", "outcome"), "cloud workers",
         "Stream entries that were answered or stored, came too late, or became dead letters."),
    Spec("derma_entries_taken_over_total", "counter", ("kind",), "cloud workers",
         "Entries taken over from a worker that did not answer."),
    Spec("derma_entry_wait_seconds", "histogram", ("kind",), "cloud workers",
         "Arrival of an entry in Redis until a worker has it, by Redis' clock."),
    Spec("derma_entry_service_seconds", "histogram", ("kind",), "cloud workers",
         "Time of one batch of entries, from taken to answered."),
    Spec("derma_build_info", "gauge", ("version",), "supervisor", "The derma that runs."),
    Spec("derma_workers", "gauge", ("stage", "state"), "supervisor", "Workers that should run, and that are at work."),
    Spec("derma_worker_restarts_total", "counter", ("stage", "worker"), "supervisor",
         "How often an instance was started again in this run."),
    Spec("derma_worker_losses_total", "counter", ("stage", "worker"), "supervisor",
         "Deaths of an instance that nobody asked for: crashes, and hangs ended by the supervisor."),
    Spec("derma_worker_heartbeat_age_seconds", "gauge", ("stage", "worker"), "supervisor",
         "Time since the last turn of a worker's loop."),
    Spec("derma_gpu_busy_ratio", "gauge", ("gpu",), "supervisor", "Share of the last moments that a kernel ran."),
    Spec("derma_gpu_memory_used_bytes", "gauge", ("gpu",), "supervisor", "Memory in use on the GPU, by anybody."),
    Spec("derma_gpu_memory_size_bytes", "gauge", ("gpu",), "supervisor", "Memory of the GPU."),
    Spec("derma_gpu_temperature_celsius", "gauge", ("gpu",), "supervisor", "Temperature of the GPU."),
    Spec("derma_gpu_power_watts", "gauge", ("gpu",), "supervisor", "Power that the GPU draws."),
)  # fmt: skip

_HEAD = """# Metrics

Made from `common/derma_common/contract.py` by `python -m derma_common.telemetry > docs/metrics.md`; do not edit.

Every process of a run serves `/metrics` on a port of its own. The supervisor writes the list of them to
`prometheus-targets.json` in the data directory, each with two labels that metrics therefore do not repeat: `service`
(capture, detector, classifier, sink, forwarder, remote, supervisor) and `instance` (such as `classifier.0`). Labels
come from closed lists. Nothing names a subject, an address of a camera, or a process number.

A histogram has one series per bucket edge (`_bucket`), `_sum` and `_count`. The end-to-end objective, @OBJECTIVE@ s,
is an edge.
"""


def page() -> str:
    """Return docs/metrics.md."""
    lines = [_HEAD.replace("@OBJECTIVE@", f"{OBJECTIVE_S:g}")]
    lines += ["| metric | type | unit | labels | exported by | meaning |", "|---|---|---|---|---|---|"]
    for s in CONTRACT:
        labels = ", ".join(f"`{label}`" for label in s.labels) or "–"
        lines.append(f"| `{s.name}` | {s.kind} | {s.unit} | {labels} | {s.by} | {s.meaning} |")
    lines += ["", "| label | values |", "|---|---|"]
    return "\n".join(lines + [f"| `{label}` | {values} |" for label, values in LABELS.items()]) + "\n"
