"""Every entry of a Redis stream, and nothing else; checked on arrival like any message (`wire.Codec`).

A site is one machine with an exam room. Entries name pictures by run, camera and number, never a file, an address or a
subject. Wall times are the sender's; a deadline is a duration, because clocks of two machines do not agree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from derma_common.errors import InvalidMessage
from derma_common.messages import BoxRow
from derma_common.preprocess import Image
from derma_common.wire import Codec

SITE = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
MAX_PICTURE_BYTES = 4 << 20
MAX_PICTURE_PX = 1024
PRIORITIES = (0, 1, 2)  # suspicious; uncertain or unknown; the rest


@dataclass(frozen=True, slots=True)
class Picture:
    """A square cut-out of a frame: `raw` holds height × width × 3 bytes BGR, `png` a PNG file."""

    encoding: str
    height: int
    width: int
    data: bytes

    def __post_init__(self) -> None:
        if self.encoding not in ("raw", "png"):
            raise ValueError(f"a picture is raw or png, not {self.encoding[:20]!r}")
        if not (0 < self.height <= MAX_PICTURE_PX and 0 < self.width <= MAX_PICTURE_PX):
            raise ValueError(f"a picture of {self.width}x{self.height} px; the limit is {MAX_PICTURE_PX}")
        if self.encoding == "raw" and len(self.data) != self.height * self.width * 3:
            raise ValueError(f"{len(self.data)} bytes for {self.width}x{self.height} px")


def picture_of(image: Image, encoding: str) -> Picture:
    """Encode image (H, W, 3) uint8 BGR without loss."""
    height, width = image.shape[:2]
    if encoding == "png":
        done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not done:
            raise ValueError(f"no PNG could be made of {width}x{height} px")
        return Picture("png", height, width, data.tobytes())
    return Picture("raw", height, width, np.ascontiguousarray(image).tobytes())


def image_of(picture: Picture) -> Image:
    """Decode a picture to (H, W, 3) uint8 BGR. Raises InvalidMessage when it is not what it says."""
    if picture.encoding == "raw":
        return np.frombuffer(picture.data, dtype=np.uint8).reshape(picture.height, picture.width, 3)
    if _png_size(picture.data) != (picture.height, picture.width):  # before anything is decoded
        raise InvalidMessage("a picture that is no PNG of the size that it states")
    image = cv2.imdecode(np.frombuffer(picture.data, dtype=np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise InvalidMessage("a damaged PNG")
    return np.asarray(image, dtype=np.uint8)


def _png_size(data: bytes) -> tuple[int, int] | None:
    """Return height and width of a PNG's header (ISO/IEC 15948, 11.2.2)."""
    if len(data) < 24 or data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        return None
    return int.from_bytes(data[20:24]), int.from_bytes(data[16:20])


@dataclass(frozen=True, slots=True)
class SentLesion:
    """One finding of a frame."""

    number: int
    box: BoxRow
    score: float
    probabilities: dict[str, float]
    classifier: str
    missing: str = ""


@dataclass(frozen=True, slots=True)
class FrameFindings:
    """A frame's durable findings, as the store holds them."""

    site: str
    run: str
    camera: str
    seq: int
    wall_ns: int
    width: int
    height: int
    outcome: str
    reason: str
    detector: str
    version: str
    priority: int
    lesions: tuple[SentLesion, ...]

    def __post_init__(self) -> None:
        _check_name(self.site, self.camera, self.seq)


@dataclass(frozen=True, slots=True)
class LesionPicture:
    """A lesion's picture for the second opinion, with what the edge said of it."""

    site: str
    run: str
    camera: str
    seq: int
    number: int
    wall_ns: int
    priority: int
    classifier: str
    probabilities: dict[str, float]
    picture: Picture

    def __post_init__(self) -> None:
        _check_name(self.site, self.camera, self.seq)


@dataclass(frozen=True, slots=True)
class Opinion:
    """A second opinion on a lesion: another statement beside the edge's, never instead of it."""

    site: str
    run: str
    camera: str
    seq: int
    number: int
    probabilities: dict[str, float]
    models: tuple[str, ...]
    method: str  # how the members' outputs became one, in words
    worker: str
    wall_ns: int
    service_ns: int

    def __post_init__(self) -> None:
        _check_name(self.site, self.camera, self.seq)


@dataclass(frozen=True, slots=True)
class CropJob:
    """A crop to be classified now; `job` is unique at its site."""

    site: str
    job: str
    model: str
    within_ns: int  # from the entry's arrival in Redis
    picture: Picture

    def __post_init__(self) -> None:
        _check_name(self.site)


@dataclass(frozen=True, slots=True)
class JobResult:
    """A job's calibrated probabilities, or why there are none."""

    site: str
    job: str
    probabilities: tuple[float, ...]
    classes: tuple[str, ...]
    model: str
    worker: str
    wait_ns: int  # in the stream, by Redis' clock
    service_ns: int
    error: str = ""

    def __post_init__(self) -> None:
        _check_name(self.site)
        if len(self.probabilities) != len(self.classes):
            raise ValueError(f"{len(self.probabilities)} probabilities for {len(self.classes)} classes")


Entry = FrameFindings | LesionPicture | Opinion | CropJob | JobResult
_TYPES = (FrameFindings, LesionPicture, Opinion, CropJob, JobResult, Picture)  # a picture alone waits in the outbox
_ENTRIES = Codec(_TYPES, MAX_PICTURE_BYTES + (1 << 20), MAX_PICTURE_BYTES)


def pack(entry: Entry | Picture) -> bytes:
    """Return the bytes of an entry."""
    return _ENTRIES.encode(entry)


def unpack(data: bytes, kind: type[Any]) -> Any:
    """Return the entry of type `kind` in `data`. Raises InvalidMessage for anything else."""
    entry = _ENTRIES.decode(data)
    if not isinstance(entry, kind):
        raise InvalidMessage(f"a {type(entry).__name__} where a {kind.__name__} belongs")
    return entry


def _check_name(site: str, camera: str = "a", seq: int = 0) -> None:
    if not SITE.match(site) or not SITE.match(camera) or seq < 0:
        raise ValueError("no site, camera or frame can have that name")
