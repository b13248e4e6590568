"""The heartbeat file: what a process last said of itself, readable after its death.

One small file per instance in the run directory, mapped by the service (writer) and the supervisor (reader).
Nothing queues, so nothing is lost or late: the supervisor sees the age of the last beat, which frame was being worked
on when the process died, and the numbers it reported.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

_SIZE = 8192
# version (odd while written), beat_ns, incarnation, pid, state, metrics port, handled, doing_seq, camera, report length
_LAYOUT = struct.Struct("<QQIIIIQq64sI")
STATES = ("starting", "ready", "leaving")


def heartbeat_path(directory: Path, instance: str) -> Path:
    """Return the heartbeat file of an instance."""
    return directory / f"beat-{instance}"


def words_path(directory: Path, instance: str) -> Path:
    """Return the file of the line that an instance left with: in memory, because the disk of the logs may be full."""
    return directory / f"words-{instance}"


@dataclass(frozen=True, slots=True)
class Beat:
    """One reading. `doing` is (camera, seq) of the frame in hand, None between frames."""

    incarnation: int
    pid: int
    state: str
    beat_ns: int
    metrics_port: int
    handled: int
    doing: tuple[str, int] | None
    report: dict[str, Any]


class Heartbeat:
    """The writing end, owned by the service."""

    def __init__(self, directory: Path, instance: str, incarnation: int) -> None:
        path = heartbeat_path(directory, instance)
        self.previous = read_beat(directory, instance)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _SIZE)
            self._map = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)
        self._version = 0
        self._incarnation = incarnation
        self._report = msgpack.packb(self.previous.report if self.previous else {})
        self._doing: tuple[str, int] | None = None
        self.state = "starting"
        self.metrics_port = 0
        self.handled = 0
        self.beat()

    def beat(self) -> None:
        """Say that the work loop turns."""
        self._write()

    def doing(self, camera: str, seq: int) -> None:
        """Say which frame is in hand, before it is touched."""
        self._doing = (camera, seq)
        self._write()

    def done(self) -> None:
        """Say that the frame in hand was finished."""
        self._doing = None
        self.handled += 1
        self._write()

    def report(self, **numbers: Any) -> None:
        """Replace the report: a small map that the supervisor and the CLI show."""
        packed = msgpack.packb(numbers)
        if len(packed) > _SIZE - _LAYOUT.size:
            raise ValueError(f"a report of {len(packed)} bytes does not fit into the heartbeat file")
        self._report = packed
        self._write()

    def _write(self) -> None:
        camera, seq = self._doing or ("", -1)
        self._version += 2
        values = (
            time.monotonic_ns(), self._incarnation, os.getpid(), STATES.index(self.state), self.metrics_port,
            self.handled, seq, camera.encode()[:64], len(self._report),
        )  # fmt: skip
        struct.pack_into("<Q", self._map, 0, self._version - 1)
        _LAYOUT.pack_into(self._map, 0, self._version - 1, *values)
        self._map[_LAYOUT.size : _LAYOUT.size + len(self._report)] = self._report
        struct.pack_into("<Q", self._map, 0, self._version)

    def close(self) -> None:
        """Unmap the file; it stays for the supervisor."""
        self._map.close()


def read_beat(directory: Path, instance: str) -> Beat | None:
    """Return the last beat of an instance, None when it never beat."""
    path = heartbeat_path(directory, instance)
    for _ in range(100):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if len(data) < _SIZE:
            return None
        version, beat_ns, incarnation, pid, state, port, handled, seq, camera, length = _LAYOUT.unpack_from(data)
        if version == 0:
            return None
        if path.read_bytes()[:8] != data[:8]:
            continue  # written while it was read
        if version % 2 == 0 or not _alive(pid):  # a writer that died in the middle leaves it odd
            return Beat(
                incarnation, pid, STATES[state] if state < len(STATES) else "starting", beat_ns, port, handled,
                (camera.rstrip(b"\0").decode(errors="replace"), seq) if seq >= 0 else None,
                _unpack_report(data[_LAYOUT.size : _LAYOUT.size + length]),
            )  # fmt: skip
    return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _unpack_report(data: bytes) -> dict[str, Any]:
    try:
        report = msgpack.unpackb(data)
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}
