"""Every type that crosses a process boundary, and nothing else.

All are small, frozen and flat. A new field gets a default; no field is ever retyped. Times end in
`_ns` and are CLOCK_MONOTONIC of this boot, except `wall_ns`. What a type cannot say is checked when a message
is made, here or from the wire: a ValueError tells what makes no sense.
"""

from __future__ import annotations

from dataclasses import dataclass

from derma_common.seqset import Range

BoxRow = tuple[float, float, float, float]  # x1 y1 x2 y2, px of the captured frame
Square = tuple[int, int, int, int]  # x1 y1 x2 y2, whole px, may reach over the edge
TRACE_BYTES = 26  # a trace context, see tracing.py
LARGEST_SQUARE = 4  # times the picture's longer side: whoever cuts it needs that much memory


@dataclass(frozen=True, slots=True)
class Handle:
    """Where a frame's pixels lie: readers derive the ring's file from it, it never holds a path."""

    camera: str
    epoch: int
    slot: int
    generation: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Frame:
    """The header of one captured picture; `image: (height, width, 3) uint8 BGR` stays in shared memory."""

    camera: str
    seq: int
    attempt: int
    captured_ns: int
    wall_ns: int
    handle: Handle
    origin: str  # the picture's file within its source, "" for a video or a camera
    capture_wait_ns: int  # waiting for a credit
    capture_service_ns: int  # reading, decoding and writing into the ring
    sent_ns: int
    trace: bytes = b""  # whose last span is the parent of whoever works on this message

    def __post_init__(self) -> None:
        if self.seq < 0 or self.attempt < 0:
            raise ValueError(f"no frame has seq {self.seq} and attempt {self.attempt}")
        _check_trace(self.trace)


@dataclass(frozen=True, slots=True)
class Detections:
    """All candidate lesions of a frame, best first; as many classifications are to be expected."""

    frame: Frame
    boxes: tuple[BoxRow, ...]
    scores: tuple[float, ...]
    model: str
    started_ns: int
    done_ns: int

    def __post_init__(self) -> None:
        if len(self.boxes) != len(self.scores):
            raise ValueError(f"{len(self.boxes)} boxes with {len(self.scores)} scores")


@dataclass(frozen=True, slots=True)
class Crops:
    """Work for a classifier: squares of one frame, cut from the ring by whoever does it."""

    frame: Frame
    first: int  # index of the first square among the frame's detections
    squares: tuple[Square, ...]
    queued_ns: int
    owner: str = ""  # the incarnation of the detector that hands it out

    def __post_init__(self) -> None:
        width, height = self.frame.handle.width, self.frame.handle.height
        largest = LARGEST_SQUARE * max(width, height)
        meets = all(
            0 < x2 - x1 <= largest and 0 < y2 - y1 <= largest and x1 < width and y1 < height and x2 > 0 and y2 > 0
            for x1, y1, x2, y2 in self.squares
        )
        if self.first < 0 or not meets:
            raise ValueError(f"not every square from {self.first} on can be cut from a {width}x{height} picture")


@dataclass(frozen=True, slots=True)
class Classifications:
    """Calibrated probabilities of some crops of a frame, rows in the order of the work's squares."""

    camera: str
    seq: int
    attempt: int
    first: int
    probabilities: tuple[tuple[float, ...], ...]
    classes: tuple[str, ...]
    model: str
    worker: str
    queued_ns: int
    started_ns: int
    done_ns: int
    trace: bytes = b""

    def __post_init__(self) -> None:
        if self.first < 0 or self.seq < 0:
            raise ValueError(f"no crop is number {self.first} of frame {self.seq}")
        _check_trace(self.trace)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a classifier can take, as absolute state: repeated, so nothing is lost with one of them."""

    worker: str
    room: int  # crops that each detector may have outstanding here (sent, not yet finished); 0: it is leaving
    finished: dict[str, int]  # owner (a detector's incarnation) → its crops finished here
    rank: int = 0  # workers of a lower rank are given work first; 1: the hand-over to other machines


@dataclass(frozen=True, slots=True)
class Farewell:
    """A detector confirms a worker's leave: its incarnation `owner` sent `sent` crops and will send no more."""

    owner: str
    sent: int


@dataclass(frozen=True, slots=True)
class Close:
    """Capture asks the sink to give frames their outcome now, with what has come, for a reason."""

    camera: str
    ranges: tuple[Range, ...]
    reason: str
    origin: str = ""  # the picture's file, where the reason is the file
    trace: bytes = b""  # of a single frame that had been sent

    def __post_init__(self) -> None:
        _check_ranges(self.ranges)
        _check_trace(self.trace)


@dataclass(frozen=True, slots=True)
class Ask:
    """Capture asks what is durable of its camera."""

    camera: str


@dataclass(frozen=True, slots=True)
class Torn:
    """A reader found other pixels behind a handle than the header said."""

    camera: str
    seq: int
    attempt: int
    stage: str


@dataclass(frozen=True, slots=True)
class Ack:
    """What is durable of a camera: these frames have their outcome. Cumulative and repeated."""

    camera: str
    ranges: tuple[Range, ...]
    delivered: int
    dropped: dict[str, int]  # reason → frames
    torn: tuple[tuple[int, int], ...] = ()  # (seq, attempt) to be sent again

    def __post_init__(self) -> None:
        _check_ranges(self.ranges)


@dataclass(frozen=True, slots=True)
class FoundLesion:
    """One finding as published: a box, its score, and a probability per class (none when not classified)."""

    box: BoxRow
    score: float
    probabilities: dict[str, float]
    missing: str = ""  # why there is no classification


@dataclass(frozen=True, slots=True)
class Findings:
    """A frame's durable result, for viewers."""

    camera: str
    seq: int
    captured_ns: int
    durable_ns: int
    outcome: str
    lesions: tuple[FoundLesion, ...]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A frame that was being worked on when `deaths` processes died."""

    camera: str
    seq: int
    deaths: int


@dataclass(frozen=True, slots=True)
class Roster:
    """The supervisor's word on who lives, as absolute state, repeated.

    `losses` counts unclean deaths per instance since the run began; `ready` names the instances at work.
    """

    ready: tuple[str, ...]
    losses: dict[str, int]
    classifiers: int
    suspects: tuple[Suspect, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """A request to the supervisor: `ps`, `scale` (argument: service=n) or `down`."""

    verb: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """One row of `derma ps`."""

    instance: str
    state: str
    pid: int
    restarts: int
    uptime_s: float
    beat_age_s: float
    handled: int
    metrics_port: int


@dataclass(frozen=True, slots=True)
class Reply:
    """The supervisor's answer; `error` is a line for the user, empty when all is well."""

    error: str = ""
    text: str = ""
    services: tuple[ServiceState, ...] = ()


def _check_ranges(ranges: tuple[Range, ...]) -> None:
    for first, last in ranges:
        if not 0 <= first <= last:
            raise ValueError(f"no range of sequence numbers: {first} … {last}")


def _check_trace(trace: bytes) -> None:
    if trace and len(trace) != TRACE_BYTES:
        raise ValueError(f"a trace context has {TRACE_BYTES} bytes, this has {len(trace)}")


TYPES: tuple[type, ...] = (
    Frame, Detections, Crops, Classifications, Capacity, Farewell, Close, Ask, Torn, Ack, Findings, Roster,
    Command, Reply,
)  # fmt: skip
Message = (
    Frame | Detections | Crops | Classifications | Capacity | Farewell | Close | Ask | Torn | Ack | Findings | Roster
    | Command | Reply
)  # fmt: skip
