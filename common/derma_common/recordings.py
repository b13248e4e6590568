"""Recordings: sources that end and can be read again, so that seq k is always the same picture.

Capture, `derma findings --pictures` and evaluation must agree on that, hence it lives here: video files,
folders and patterns of pictures, single pictures, and the drawn `synthetic://` source.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from itertools import count
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from derma_common.addresses import Synthetic, fixed_part, synthetic_of
from derma_common.drawn.camera import SyntheticCamera
from derma_common.errors import SourceError
from derma_common.preprocess import Image

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
OTHER_PICTURES = (".heic", ".heif", ".gif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".dcm")  # OpenCV reads none of them
SHORT_OF = 0.9  # of the pictures that a container announces; its count is often an estimate
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".mjpeg")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a recording: its number, its file within the source ("" in a video), its pixels.

    `image` is (H, W, 3) uint8 BGR, or None when this one file cannot be read; then `error` says why. `at_s` is its time
    since the start of a video, None where that is not known.
    """

    seq: int
    origin: str
    image: Image | None
    error: str = ""
    at_s: float | None = None


class Recording(Protocol):
    """A source that can be read again from its start; `note` is what a person should know after it was read."""

    note: str

    def pictures(self, skip: SkipSet) -> Iterator[Picture]:
        """Yield the pictures whose seq is not in `skip`, in order."""
        ...


class SkipSet(Protocol):
    """Sequence numbers that need not be read."""

    def __contains__(self, seq: int, /) -> bool: ...


class VideoFile:
    """A video file, decoded by OpenCV's FFmpeg, which also turns it as its rotation flag says."""

    def __init__(self, path: Path) -> None:
        """Check that the file opens. Raises SourceError."""
        self.path = path.absolute()  # FFmpeg would take a relative one such as concat:a.mp4 for one of its protocols
        self.note = ""
        self._open().release()

    def _open(self) -> cv2.VideoCapture:
        if shown(self.path) != str(self.path):  # OpenCV dies of it
            raise SourceError(f"{shown(self.path)} has a name that is no UTF-8; rename the file")
        capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise SourceError(f"{self.path} is not a video that FFmpeg can open")
        return capture

    @property
    def fps(self) -> float:
        """Frames per second as the container says, 25 when it does not."""
        capture = self._open()
        fps = capture.get(cv2.CAP_PROP_FPS)
        capture.release()
        return float(fps) if 1 <= fps <= 1000 else 25.0

    def pictures(self, skip: SkipSet) -> Iterator[Picture]:
        """Yield the frames that are not in `skip`; skipped ones are decoded but not converted."""
        capture = self._open()
        try:
            seq = 0
            while capture.grab():
                at_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000  # 0 for each: the container has no times
                if seq not in skip:
                    read, image = capture.retrieve()
                    if not read:
                        break
                    known = at_s > 0 or seq == 0
                    yield Picture(seq, "", np.asarray(image, dtype=np.uint8), at_s=at_s if known else None)
                seq += 1
            if seq == 0:
                raise SourceError(f"{self.path} holds no picture that can be decoded")
            promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            if seq < SHORT_OF * promised:
                self.note = f"the video announces {promised:.0f} pictures and gives {seq}: it may be cut off"
        finally:
            capture.release()


class PictureFiles:
    """A single picture, or the pictures of a folder or pattern, sorted by name with numbers in numeric order."""

    def __init__(self, path: Path) -> None:
        """List the files. Raises SourceError when there is none."""
        self.note = ""
        self.is_single = path.exists() and not path.is_dir()
        if self.is_single:
            self.path, self.files = path, [path]
            return
        self.path = path if path.is_dir() else fixed_part(path)
        found = path.rglob("*") if path.is_dir() else map(Path, glob(str(path), recursive=True))
        pictures = [p for p in found if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file()]
        self.files = sorted(pictures, key=lambda p: _natural(str(p.relative_to(self.path))))
        if not self.files:
            raise SourceError(f"{path} holds no pictures ({' '.join(PICTURE_SUFFIXES)})")

    def pictures(self, skip: SkipSet) -> Iterator[Picture]:
        """Yield the pictures that are not in `skip`; one bad file among many is yielded as such."""
        for seq, file in enumerate(self.files):
            if seq in skip:
                continue
            origin = shown(file.relative_to(self.path) if file != self.path else file.name)
            try:
                yield Picture(seq, origin, read_picture(file))
            except SourceError as error:
                if len(self.files) == 1:
                    raise
                yield Picture(seq, origin, None, str(error))


def shown(path: str | Path) -> str:
    """Return a path as it can be written and sent: what is no UTF-8 in it becomes question marks."""
    return os.fsencode(path).decode(errors="replace")


def read_picture(file: Path) -> Image:
    """Read a picture file as (H, W, 3) uint8 BGR, turned upright by EXIF. Raises SourceError."""
    try:
        data = np.fromfile(file, dtype=np.uint8)
    except OSError as error:
        raise SourceError(f"{shown(file)} cannot be read: {error.strerror}") from error
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error as error:  # such as more pixels than allowed, seen before anything is decoded
        raise SourceError(
            f"{shown(file)} is refused ({error.err}): it may have 50 million pixels; scale it down"
        ) from error
    if image is None:
        raise SourceError(f"{shown(file)} is not a picture that OpenCV can decode, or it is damaged")
    return np.asarray(image, dtype=np.uint8)


class SyntheticRecording:
    """The drawn source: moving skin with lesions whose boxes it knows."""

    def __init__(self, parameters: Synthetic) -> None:
        """Draw nothing yet: the canvas is drawn with the first picture."""
        self.note = ""
        self.parameters = parameters

    @property
    def fps(self) -> float:
        """The pace when it plays live; 25 when none was asked."""
        return float(self.parameters.fps or 25)

    def camera(self) -> SyntheticCamera:
        """Draw the canvas and return the camera that moves over it; it knows the true boxes."""
        p = self.parameters
        return SyntheticCamera(seed=p.seed, frames=p.frames or 100_000, width=p.width, height=p.height)

    def pictures(self, skip: SkipSet) -> Iterator[Picture]:
        """Yield the frames that are not in `skip`; with frames=0 there is no end."""
        camera = self.camera()
        for seq in count() if not self.parameters.frames else range(self.parameters.frames):
            if seq not in skip:
                yield Picture(seq, "", camera.frame(seq)[0])


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name) if part]


def is_there(path: Path) -> bool:
    """Say whether a path is a file or folder, or a pattern such as shots/*.jpg, whose files are listed later.

    Raises SourceError when one may not look.
    """
    try:
        return path.exists() or has_magic(str(path))
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error


def open_recording(source: str) -> Recording:
    """Open a recording by path, pattern or `synthetic://` URI. Raises SourceError with what was wrong."""
    drawn = synthetic_of(source)
    if drawn is not None:
        return SyntheticRecording(drawn)
    path = Path(source).expanduser()
    if not is_there(path):
        raise SourceError(f"there is no file or folder {source}")
    if not path.exists():
        return PictureFiles(path)
    if not os.access(path, os.R_OK):
        raise SourceError(f"{path} may not be read by this user: chmod it, or run as its owner")
    if path.is_dir():
        return PictureFiles(path)
    if not path.is_file():  # a pipe or device would never end
        raise SourceError(f"{path} is neither a file nor a folder; webcams are /dev/videoN")
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return PictureFiles(path)
    if path.suffix.lower() in OTHER_PICTURES:
        raise SourceError(f"{path}: {path.suffix} pictures are not read; convert them to PNG or JPEG")
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes)")
    return VideoFile(path)
