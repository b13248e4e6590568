"""What the dashboards show: panels as data, which `dashboards.py` turns into Grafana's JSON."""

from __future__ import annotations

from dataclasses import dataclass

RATE = "$__rate_interval"
CAMERA = 'camera=~"$camera"'
OBJECTIVE_S = 0.25


@dataclass(frozen=True)
class Panel:
    """One panel. `kind` is lines, stacked, heatmap, number or table; `steps` are (from, colour) beyond green."""

    title: str
    description: str
    queries: tuple[tuple[str, str], ...]  # expression, legend
    unit: str
    kind: str = "lines"
    width: int = 8
    height: int = 8
    steps: tuple[tuple[float, str], ...] = ()
    runbook: str = ""


@dataclass(frozen=True)
class Board:
    """One dashboard; rows have a title."""

    uid: str
    title: str
    description: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    by_camera: bool = True


def quantiles(metric: str, by: str, selector: str = "", legend: str = "") -> tuple[tuple[str, str], ...]:
    """Return p50, p90 and p99 of a histogram by a label."""
    keys, match = ", ".join(filter(None, ("le", by))), f"{{{selector}}}" if selector else ""
    return tuple(
        (f"histogram_quantile({q}, sum by ({keys}) (rate({metric}_bucket{match}[{RATE}])))", f"{legend}p{name}")
        for q, name in ((0.5, "50"), (0.9, "90"), (0.99, "99"))
    )


def p99(metric: str, by: str, selector: str = "") -> tuple[tuple[str, str], ...]:
    """Return the p99 of a histogram by a label; nothing, instead of NaN, where nothing happened."""
    match = f"{{{selector}}}" if selector else ""
    inner = f"histogram_quantile(0.99, sum by (le, {by}) (rate({metric}_bucket{match}[{RATE}])))"
    return ((f"{inner} >= 0", f"{{{{{by}}}}}"),)


LATE = ((OBJECTIVE_S, "red"),)
END_TO_END = f"derma_frame_latency_seconds_bucket{{{CAMERA}}}"
FRAMES = f"derma_frame_latency_seconds_count{{{CAMERA}}}"
SLOW = "camera:derma_frames_slow:ratio_rate"


def _at_once(q: float) -> tuple[tuple[str, str], ...]:
    return ((f"histogram_quantile({q}, sum by (le) (rate({END_TO_END}[{RATE}])))", f"p{q * 100:g}"),)


_NOW = ("End to end", (
    Panel("p50 now", "Half of the frames are faster.", _at_once(0.5), "s", "number", 4, 4, LATE, "latency"),
    Panel("p90 now", "Nine of ten frames are faster.", _at_once(0.9), "s", "number", 4, 4, LATE, "latency"),
    Panel("p99 now", "99 of 100 frames are faster. The objective is 0.25 s.", _at_once(0.99), "s", "number", 4, 4,
          LATE, "latency"),
    Panel("Within the objective", "Share of frames with durable findings within 0.25 s; the objective is 99 %.",
          ((f'sum(rate(derma_frame_latency_seconds_bucket{{{CAMERA},le="0.25"}}[{RATE}]))'
            f" / sum(rate({FRAMES}[{RATE}]))", "within 0.25 s"),), "percentunit", "number", 4, 4,
          ((0.0, "red"), (0.99, "green")), "latency"),
    Panel("Oldest frame in flight", "Age of the oldest picture whose findings are not yet durable.",
          ((f"max(derma_picture_age_seconds{{{CAMERA}}})", "age"),), "s", "number", 4, 4, ((1.0, "red"),),
          "latency"),
    Panel("Burn of the budget, 1 h", "How many times faster than allowed the error budget (1 % slow frames) is "
          "used up. 14.4 pages.", ((f"max({SLOW}1h{{{CAMERA}}}) / 0.01", "burn"),), "none", "number", 4, 4,
          ((1.0, "orange"), (14.4, "red")), "latency"),
))  # fmt: skip

_SPENT = ("Where a frame spends its time", (
    Panel("Mean time of a frame by stage, waiting and working",
          "Seconds of each stage, waiting for it and being worked on, per frame; the sum is the mean end to end "
          "(capture of a recording comes before the picture counts as captured). What is thick is what to mend.",
          ((f"sum by (stage, part) (rate(derma_frame_stage_seconds_total[{RATE}]))"
            f" / scalar(sum(rate(derma_frame_latency_seconds_count[{RATE}])))", "{{stage}} {{part}}"),),
          "s", "stacked", 16, 10, LATE, "latency"),
    Panel("End to end, heat map", "How many frames took how long: two bands are two kinds of frames, which no "
          "percentile shows.", ((f"sum by (le) (rate({END_TO_END}[{RATE}]))", "{{le}}"),), "s", "heatmap", 8, 10),
    Panel("End to end, p50, p90, p99", "From the picture to durable findings. The line is the objective.",
          quantiles("derma_frame_latency_seconds", "", CAMERA), "s", steps=LATE, runbook="latency"),
    Panel("Wait before each stage, p99", "From the sending of a message to the start of work on it. The stage "
          "with the longest wait is the one to scale.", p99("derma_stage_wait_seconds", "stage"), "s",
          steps=LATE, runbook="latency"),
    Panel("Work of each stage, p99", "Time of a stage's work on one message.",
          p99("derma_stage_service_seconds", "stage"), "s", steps=LATE, runbook="latency"),
))  # fmt: skip

_STAGES_AND_WORKERS = ("Stages and workers", (
    Panel("Classifier: wait p50, p90, p99", "Crops wait here when the classifiers are too few: derma scale "
          "classifier=N.", quantiles("derma_stage_wait_seconds", "", 'stage="classifier"', "wait "), "s",
          steps=LATE, runbook="latency"),
    Panel("Work by worker, p99", "One worker slower than its like shares its cores with something.",
          p99("derma_stage_service_seconds", "instance"), "s", steps=LATE, runbook="latency"),
    Panel("Wait by worker, p99", "Waiting before each worker.", p99("derma_stage_wait_seconds", "instance"), "s",
          steps=LATE, runbook="latency"),
    Panel("Commit, p50, p90, p99", "Time until one transaction is on the disk.",
          quantiles("derma_commit_seconds", ""), "s", runbook="storage"),
    Panel("Slow frames by camera", "Share of frames slower than 0.25 s over several windows: short ones say that "
          "it is so now, long ones that it matters.",
          ((f"{SLOW}5m{{{CAMERA}}}", "{{camera}} 5 min"), (f"{SLOW}1h{{{CAMERA}}}", "{{camera}} 1 h"),
           (f"{SLOW}6h{{{CAMERA}}}", "{{camera}} 6 h")), "percentunit", steps=((0.01, "orange"), (0.144, "red")),
          runbook="latency"),
    Panel("Busy workers of a stage", "Share of the time that a stage's workers work; near 1 the stage limits the "
          "pipeline.", (("stage:derma_stage_busy:ratio_rate1m", "{{stage}}"),), "percentunit",
          steps=((0.9, "orange"),), runbook="latency"),
))  # fmt: skip

LATENCY = Board(
    "derma-latency",
    "derma: latency",
    "Where a frame spends its time, from the picture to durable findings.",
    (_NOW, _SPENT, _STAGES_AND_WORKERS),
)

_FLOW = ("Flow", (
    Panel("Frames captured and delivered", "Pictures taken and frames with durable findings, per second.",
          ((f'sum by (camera) (rate(derma_frames{{{CAMERA},state="captured"}}[{RATE}]))', "{{camera}} captured"),
           (f'sum by (camera) (rate(derma_frame_outcomes_total{{{CAMERA},outcome="delivered"}}[{RATE}]))',
            "{{camera}} delivered")), "cps", runbook="drops"),
    Panel("Drops by reason", "Frames that were given up, per second. busy: a newer picture took its place, which is "
          "how a live camera keeps pace; other reasons are losses.",
          ((f'sum by (reason) (rate(derma_frame_outcomes_total{{{CAMERA},outcome="dropped"}}[{RATE}]))',
            "{{reason}}"),), "cps", runbook="drops"),
    Panel("Share dropped", "Share of the frames that were dropped, over 5 minutes and an hour.",
          ((f"camera:derma_frames_dropped:ratio_rate5m{{{CAMERA}}}", "{{camera}} 5 min"),
           (f"camera:derma_frames_dropped:ratio_rate1h{{{CAMERA}}}", "{{camera}} 1 h")), "percentunit",
          runbook="drops"),
    Panel("Findings", "Findings made durable, per second.",
          ((f"sum by (camera) (rate(derma_findings_total{{{CAMERA}}}[{RATE}]))", "{{camera}}"),), "cps"),
    Panel("Unaccounted frames", "captured less delivered, dropped and in flight: 0 at every moment.",
          ((f'sum by (camera) (derma_frames{{{CAMERA},state="captured"}})'
            f' - sum by (camera) (derma_frames{{{CAMERA},state!="captured"}})', "{{camera}}"),), "none",
          steps=((1.0, "red"),), runbook="counts-disagree"),
    Panel("Messages thrown away, pictures gone", "Garbage on the wire, and pictures overwritten before they were "
          "read; both should be 0.",
          ((f"sum by (stage) (rate(derma_invalid_messages_total[{RATE}]))", "{{stage}} invalid"),
           (f"sum by (stage) (rate(derma_stale_handles_total[{RATE}]))", "{{stage}} stale")), "cps"),
))  # fmt: skip

_CREDITS_AND_CAMERAS = ("Credits and cameras", (
    Panel("In flight and credits", "Frames on their way, and how many may be. At the limit the pipeline is the "
          "slower one, below it the camera.",
          ((f'sum by (camera) (derma_frames{{{CAMERA},state="in_flight"}})', "{{camera}} in flight"),
           (f"sum by (camera) (derma_credits{{{CAMERA}}})", "{{camera}} credits")), "none", runbook="latency"),
    Panel("Ring slots", "Slots of the cameras' rings in shared memory.",
          ((f"sum by (camera, state) (derma_ring_slots{{{CAMERA}}})", "{{camera}} {{state}}"),), "none"),
    Panel("Age of the oldest frame in flight", "At most (credits + 1) times the slowest stage.",
          ((f"derma_picture_age_seconds{{{CAMERA}}}", "{{camera}}"),), "s", steps=((1.0, "red"),),
          runbook="latency"),
    Panel("Camera state", "1 for the state that each camera is in.",
          ((f"derma_camera_state{{{CAMERA}}} == 1", "{{camera}} {{state}}"),), "none", runbook="camera-silent"),
    Panel("Camera silence", "Time since a live source last gave a picture.",
          ((f"derma_camera_silence_seconds{{{CAMERA}}}", "{{camera}}"),), "s", steps=((5.0, "red"),),
          runbook="camera-silent"),
    Panel("Live cameras", "1: the source does not wait for the pipeline; 0: a recording, which does.",
          ((f"derma_camera_live{{{CAMERA}}}", "{{camera}}"),), "none"),
))  # fmt: skip

_WORKERS_AND_SCALING = ("Workers and scaling", (
    Panel("Workers wanted and at work", "derma scale changes what is wanted.",
          (("sum by (stage, state) (derma_workers)", "{{stage}} {{state}}"),), "none", runbook="worker-flapping"),
    Panel("Crops waiting, held, and room", "Crops that wait for a classifier, that classifiers hold, and that they "
          "offered to hold.",
          (("sum(derma_pending_crops)", "waiting"), ("sum(derma_outstanding_crops)", "held"),
           ("sum(derma_offered_room_crops)", "room offered")), "none", runbook="latency"),
    Panel("Messages by worker", "Messages that each worker finished, per second: shares should be alike.",
          ((f"sum by (instance) (rate(derma_stage_service_seconds_count[{RATE}]))", "{{instance}}"),), "cps"),
    Panel("Restarts and losses", "Starts after the first one, and deaths that nobody asked for, in this run.",
          (("sum by (worker) (derma_worker_restarts_total)", "{{worker}} restarts"),
           ("sum by (worker) (derma_worker_losses_total)", "{{worker}} losses")), "none",
          steps=((1.0, "orange"), (3.0, "red")), runbook="worker-flapping"),
    Panel("Age of heartbeats", "Time since the last turn of each worker's loop.",
          (("derma_worker_heartbeat_age_seconds", "{{worker}}"),), "s", steps=((1.0, "orange"), (4.0, "red")),
          runbook="worker-hangs"),
    Panel("Models", "Which network file each process serves.",
          (("derma_model_info", ""),), "none", "table"),
))  # fmt: skip

PIPELINE = Board(
    "derma-pipeline",
    "derma: pipeline",
    "What flows, what is dropped and why, credits, workers and scaling.",
    (_FLOW, _CREDITS_AND_CAMERAS, _WORKERS_AND_SCALING),
)

_PROCESSES = ("Processes", (
    Panel("CPU by process", "Cores that each process uses.",
          ((f"rate(derma_process_cpu_seconds_total[{RATE}])", "{{instance}}"),), "none"),
    Panel("Resident memory by process", "A line that only rises is a leak.",
          (("derma_process_resident_memory_bytes", "{{instance}}"),), "bytes", runbook="worker-flapping"),
    Panel("Open files by process", "File descriptors; a line that only rises is a leak.",
          (("derma_process_open_fds", "{{instance}}"),), "none"),
    Panel("Uptime", "Time since each process was started; a saw-tooth is a worker that dies.",
          (("time() - derma_process_start_time_seconds", "{{instance}}"),), "s", runbook="worker-flapping"),
    Panel("Answers to Prometheus", "1: the process answers. Time that an answer takes is in the next panel.",
          (('up{job="derma"}', "{{instance}}"),), "none", runbook="worker-hangs"),
    Panel("Time of a scrape", "How long each process takes to answer Prometheus.",
          (('scrape_duration_seconds{job="derma"}', "{{instance}}"),), "s"),
))  # fmt: skip

_STORAGE = ("Storage", (
    Panel("Room left", "Share of the file system that is free.",
          (("min by (place) (derma_storage_free_bytes / derma_storage_size_bytes)", "{{place}}"),), "percentunit",
          width=12, steps=((0.0, "red"), (0.05, "orange"), (0.25, "green")), runbook="storage"),
    Panel("Room left, bytes", "Free bytes where a run keeps database and logs (data) and pictures (rings).",
          (("derma_storage_free_bytes", "{{place}}"),), "bytes", width=12, runbook="storage"),
))  # fmt: skip

_GPU = ("GPU", (
    Panel("GPU busy", "Share of the time that a kernel ran.", (("derma_gpu_busy_ratio", "GPU {{gpu}}"),),
          "percentunit", width=6),
    Panel("GPU memory", "Memory in use, by anybody, and memory of the GPU.",
          (("derma_gpu_memory_used_bytes", "GPU {{gpu}} used"), ("derma_gpu_memory_size_bytes", "GPU {{gpu}} size")),
          "bytes", width=6),
    Panel("GPU temperature", "A hot GPU slows down.", (("derma_gpu_temperature_celsius", "GPU {{gpu}}"),), "celsius",
          width=6, steps=((80.0, "orange"), (90.0, "red")), runbook="latency"),
    Panel("GPU power", "Power that the GPU draws.", (("derma_gpu_power_watts", "GPU {{gpu}}"),), "watt", width=6),
))  # fmt: skip

HOST = Board(
    "derma-host",
    "derma: host and GPU",
    "What the processes and the machine have left. GPU panels are empty without one.",
    (_PROCESSES, _STORAGE, _GPU),
    by_camera=False,
)

_LINE_AND_BACKLOG = ("Line and backlog", (
    Panel("Line to the cloud", "1: Redis answers. While it does not, everything waits in the database.",
          (("derma_cloud_connected", "{{instance}}"),), "none", "number", 4, 4,
          ((0.0, "red"), (1.0, "green")), "backlog"),
    Panel("Oldest entry", "How long the entry that has waited longest has waited.",
          (("derma_outbox_oldest_seconds", "oldest"),), "s", "number", 4, 4, ((60.0, "orange"), (900.0, "red")),
          "backlog"),
    Panel("Entries waiting", "Findings and pictures that have not left yet.",
          (('sum(derma_outbox_entries{state="waiting"})', "waiting"),), "none", "number", 4, 4, (), "backlog"),
    Panel("Set aside", "Entries that Redis refused while it took others; `derma outbox ls` says why.",
          (('sum(derma_outbox_entries{state="quarantined"})', "set aside"),), "none", "number", 4, 4,
          ((1.0, "orange"),), "backlog"),
    Panel("Room for pictures used", "Share of the bytes of pictures that may wait; what happens at 1 is "
          "`cloud.when_full`.", (("sum(derma_outbox_backlog_bytes) / sum(derma_outbox_limit_bytes)", "used"),),
          "percentunit", "number", 4, 4, ((0.8, "orange"), (0.95, "red")), "backlog"),
    Panel("Second opinions", "Statements of cloud workers that came back, in the past hour.",
          (("sum(increase(derma_opinions_total[1h]))", "in 1 h"),), "none", "number", 4, 4),
    Panel("Entries waiting by kind", "A line that rises is a line to the cloud that is down or too slow.",
          (('derma_outbox_entries{state="waiting"}', "{{kind}}"),), "none", runbook="backlog"),
    Panel("Backlog of pictures", "Bytes that wait, and that may wait.",
          (("derma_outbox_backlog_bytes", "{{kind}}"), ("derma_outbox_limit_bytes", "limit")), "bytes",
          runbook="backlog"),
    Panel("Sent", "Entries that Redis has taken, per second.",
          ((f"rate(derma_outbox_sent_total[{RATE}])", "{{kind}}"),), "cps"),
    Panel("From durable here to taken there, p50, p90, p99", "After an hour without the line, an hour.",
          quantiles("derma_outbox_delay_seconds", ""), "s", runbook="backlog"),
    Panel("Given up", "Entries that will never leave, by reason, since the database was made.",
          (("sum by (kind, reason) (derma_outbox_given_up_total)", "{{kind}} {{reason}}"),), "none",
          steps=((1.0, "orange"),), runbook="backlog"),
    Panel("Times the line was found down", "Attempts that failed, in 5 minutes; they become rarer the longer it lasts.",
          (("increase(derma_cloud_failures_total[5m])", "{{instance}}"),), "none", runbook="backlog"),
))  # fmt: skip

_ELSEWHERE = ("Classified elsewhere", (
    Panel("Crops by result", "answered; failed: refused or of another model; taken_back: no answer in time, done by "
          "whoever had room; late: an answer after that.",
          ((f"sum by (result) (rate(derma_remote_crops_total[{RATE}]))", "{{result}}"),), "cps", width=12,
          runbook="backlog"),
    Panel("From sending to answer, p50, p90, p99", "Line, queue and network of the other machine together.",
          quantiles("derma_remote_seconds", ""), "s", width=12, steps=((1.0, "red"),), runbook="backlog"),
))  # fmt: skip

CLOUD = Board(
    "derma-cloud",
    "derma: edge to cloud",
    "What waits to leave, how fast it leaves, and what others do for us. Empty where no cloud is configured.",
    (_LINE_AND_BACKLOG, _ELSEWHERE),
    by_camera=False,
)

BOARDS = (LATENCY, PIPELINE, HOST, CLOUD)
