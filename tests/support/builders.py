"""Messages with sensible content, one line each."""

from __future__ import annotations

from typing import Any

from derma_common.messages import BoxRow, Classifications, Crops, Detections, Frame, Handle, Square

CLASSES = ("benign", "melanoma", "unknown")


def handle(camera: str = "cam0", slot: int = 0, generation: int = 2, height: int = 48, width: int = 64) -> Handle:
    return Handle(camera, 0, slot, generation, height, width)


def frame(seq: int = 0, attempt: int = 0, camera: str = "cam0", **changes: Any) -> Frame:
    values: dict[str, Any] = {
        "handle": handle(camera, slot=seq), "captured_ns": 1000, "wall_ns": 5, "origin": "", "capture_wait_ns": 1,
        "capture_service_ns": 2, "sent_ns": 1010,
    }  # fmt: skip
    return Frame(camera=camera, seq=seq, attempt=attempt, **(values | changes))


def box(i: int) -> BoxRow:
    return (float(i), float(i), i + 10.0, i + 8.0)


def detections(of: Frame, n: int = 1) -> Detections:
    scores = tuple(0.9 - i / 100 for i in range(n))
    return Detections(of, tuple(box(i) for i in range(n)), scores, "det@0", 1020, 1030)


def crops(of: Frame, n: int = 1, first: int = 0, owner: str = "") -> Crops:
    squares: tuple[Square, ...] = tuple((first + i, 0, first + i + 12, 12) for i in range(n))
    return Crops(of, first, squares, 1030, owner)


def classifications(of: Frame, n: int = 1, first: int = 0, worker: str = "classifier.0") -> Classifications:
    rows = tuple((0.2, 0.7, 0.1) for _ in range(n))
    return Classifications(
        of.camera, of.seq, of.attempt, first, rows, CLASSES, "cls@0", worker, 1030, 1040 + first, 1050 + first
    )
