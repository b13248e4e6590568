"""Every setting of derma as a field of a frozen dataclass, with its default; `deploy/derma.toml` documents each one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

SMALLEST_TILE_PX = 64  # below it a picture falls into thousands
TilePx = int | Literal["auto"]  # side of tiles; 0: none; "auto": as suits a picture and the detector's input
CAMERA_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Where a run keeps its things."""

    data_dir: str = "derma-data"  # database and logs
    shm_dir: str = "/dev/shm"  # rings and sockets, in a directory of the run's own
    engine_dir: str = "~/.cache/derma/engines"  # TensorRT's engines
    engine_pictures: str = ""  # that engines are judged and calibrated on; empty: the sample recording


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """Reading pictures."""

    window: int = 8  # credits of a recorded source
    window_live: int = 2  # credits of a live source, plus one for each classifier beyond the first
    deadline_s: float = 2.0  # a live frame is closed with what has come after this time
    retry_after_s: float = 10.0  # last resort: a recorded frame without outcome is sent again
    open_timeout_s: float = 5.0
    read_timeout_s: float = 5.0
    cores: tuple[int, ...] = ()
    priority: int = 0
    realtime: int = 0  # SCHED_FIFO's; 0: off
    threads: int = 1  # OpenCV's own


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """Finding lesions."""

    model: str = "yolov4-tiny-mole"
    workers: int = 1  # a camera belongs to one of them
    threads: int = 0  # 0: chosen from the machine's cores
    score_threshold: float = -1.0  # negative: the model card's
    live_tiles: int = 2  # of a live camera with tile_px: looked at in each frame, in turn
    cores: tuple[int, ...] = ()
    priority: int = 0
    realtime: int = 0  # SCHED_FIFO's; 0: off
    gpu: int = 0  # index of the GPU, where there is one; -1: none
    runner: str = "auto"  # or onnx, onnx-cuda, onnx-tensorrt, tensorrt
    precision: str = "fp16"  # of a TensorRT engine: fp32, fp16, int8
    gpu_percent: int = 100  # of the GPU's multiprocessors, at once; less needs gpu.mps
    gpu_memory_mb: int = 0  # of the GPU's memory, at most; 0: no limit; needs gpu.mps


@dataclass(frozen=True, slots=True)
class ClassifierSettings:
    """Classifying crops."""

    model: str = "efficientnet-b0-skin"
    workers: int = 0  # 0: chosen from the machine's cores
    threads: int = 0
    room: int = 8  # crops that may be outstanding at one worker
    cores: tuple[int, ...] = ()
    priority: int = 0
    realtime: int = 0  # SCHED_FIFO's; 0: off
    gpu: int = 0
    runner: str = "auto"
    precision: str = "fp16"
    gpu_percent: int = 100  # of the GPU's multiprocessors, at once; less needs gpu.mps
    gpu_memory_mb: int = 0  # of the GPU's memory, at most; 0: no limit; needs gpu.mps
    where: str = "local"  # or remote, or both


@dataclass(frozen=True, slots=True)
class GpuSettings:
    """What the processes on a GPU share."""

    mps: bool = False  # NVIDIA's Multi-Process Service: their work runs at the same time instead of in turns


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """Storing findings."""

    database: str = ""  # empty: derma.db in run.data_dir
    cores: tuple[int, ...] = ()
    priority: int = 0
    realtime: int = 0  # SCHED_FIFO's; 0: off


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """Watching processes."""

    hang_after_s: float = 4.0  # no heartbeat for so long: the process is replaced
    start_timeout_s: float = 60.0
    stop_timeout_s: float = 5.0
    fruitless_starts: int = 5  # in a row, then the run is given up
    back_off_s: float = 0.25  # doubled with every fruitless start
    poison_deaths: int = 3  # a frame in hand at so many deaths is dropped


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """Prometheus endpoints."""

    enabled: bool = True
    address: str = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    """What goes to the log files."""

    level: str = "info"
    format: str = "human"  # or "json": one object a line


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """A frame's way through the stages as OpenTelemetry spans; needs the extra `trace`."""

    enabled: bool = False
    sample_ratio: float = 0.1  # of the frames, decided at capture
    endpoint: str = ""  # OTLP over HTTP; empty: traces.jsonl in run.data_dir


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """What leaves the machine, and where to; nothing while `redis` is empty."""

    redis: str = ""  # rediss://host:6379/0; redis:// on this machine only
    site: str = "site"  # this machine's name there
    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    timeout_s: float = 5.0
    pictures: str = "none"  # of lesions, for the second opinion: none, doubtful, all
    picture_px: int = 224
    picture_encoding: str = "png"  # or raw
    picture_every_s: float = 1.0  # per video or camera; every file of a folder counts
    outbox_mb: int = 2048  # pictures that wait, at most
    outbox_days: float = 0.0  # whatever waits longer is given up; 0: never
    when_full: str = "discard_oldest"  # pictures: or refuse_new
    room: int = 32  # crops that may be outstanding at remote classifiers
    within_s: float = 1.0  # a crop that was not classified by then is taken back
    cores: tuple[int, ...] = ()
    priority: int = 0
    realtime: int = 0  # SCHED_FIFO's; 0: off


@dataclass(frozen=True, slots=True)
class Camera:
    """A source with its alias: the name in metrics, logs and findings."""

    name: str
    source: str
    live: bool | None = None  # None: the source's own nature
    tile_px: TilePx = 0  # side of the tiles that wide pictures are cut into; 0: only the whole picture is looked at
    user: str = ""  # of a network camera whose address has none
    password_file: str = ""
    width_px: int = 0  # of a webcam, as asked from its driver; 0, "": the driver's choice
    height_px: int = 0
    fps: float = 0.0
    pixel_format: str = ""  # four letters, such as MJPG


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything, resolved."""

    run: RunSettings = field(default_factory=RunSettings)
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    detector: DetectorSettings = field(default_factory=DetectorSettings)
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    gpu: GpuSettings = field(default_factory=GpuSettings)
    sink: SinkSettings = field(default_factory=SinkSettings)
    supervisor: SupervisorSettings = field(default_factory=SupervisorSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    tracing: TracingSettings = field(default_factory=TracingSettings)
    cloud: CloudSettings = field(default_factory=CloudSettings)
    camera: tuple[Camera, ...] = ()

    @property
    def data_dir(self) -> Path:
        """The absolute data directory."""
        return Path(self.run.data_dir).expanduser().absolute()

    @property
    def database(self) -> Path:
        """The absolute path of the database."""
        return Path(self.sink.database).expanduser().absolute() if self.sink.database else self.data_dir / "derma.db"
