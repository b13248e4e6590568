"""Two plain charts drawn with OpenCV, so that preparing and training need no plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from derma_common.errors import ResourceError
from derma_common.preprocess import Image

COLOURS = ((180, 119, 31), (14, 127, 255), (44, 160, 44), (40, 39, 214), (189, 103, 148))  # BGR
INK, FAINT, PAPER = (40, 40, 40), (215, 215, 215), 255
FONT, SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.45
MARGIN, ROW = 16, 26


def bars(counts: Mapping[str, Mapping[str, int]], title: str) -> Image:
    """Draw counts[class][part] as stacked horizontal bars with their numbers; return (H, W, 3) uint8 BGR."""
    parts = list(dict.fromkeys(part for by_part in counts.values() for part in by_part))
    label_px = max(_width(name) for name in counts) + 2 * MARGIN
    longest = max(sum(by_part.values()) for by_part in counts.values())
    width, room = 800, 800 - label_px - 110
    image = np.full((3 * ROW + len(counts) * ROW + MARGIN, width, 3), PAPER, dtype=np.uint8)
    _write(image, title, MARGIN, ROW)
    _legend(image, parts, MARGIN, 2 * ROW)
    for row, (name, by_part) in enumerate(counts.items()):
        y, x = 3 * ROW + row * ROW, float(label_px)
        _write(image, name, MARGIN, y)
        for part, n in by_part.items():
            end = x + room * n / max(longest, 1)
            cv2.rectangle(image, (round(x), y - 12), (round(end), y + 2), COLOURS[parts.index(part) % len(COLOURS)], -1)
            x = end
        _write(image, " + ".join(str(n) for n in by_part.values()), round(x) + 6, y)
    return image


def curves(lines: Mapping[str, Sequence[float]], title: str) -> Image:
    """Draw series over epochs 1, 2, …, each in its own panel with its own scale; return (H, W, 3) uint8 BGR."""
    height, width = 170, 800
    panels = []
    for index, (name, values) in enumerate(lines.items()):
        panel = np.full((height, width, 3), PAPER, dtype=np.uint8)
        left, right, top, bottom = 80, width - MARGIN, 30, height - 24
        known = np.asarray(values, dtype=np.float64)
        finite = known[np.isfinite(known)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        span = high - low or 1.0
        cv2.rectangle(panel, (left, top), (right, bottom), FAINT, 1)
        _write(panel, f"{name}" if index else f"{title}: {name}", left, 20)
        _write(panel, f"{high:.3g}", MARGIN, top + 10)
        _write(panel, f"{low:.3g}", MARGIN, bottom)
        _write(panel, f"epoch {len(known)}", right - 80, height - 8)
        step = (right - left) / max(len(known) - 1, 1)
        points = [
            (round(left + i * step), round(bottom - (v - low) / span * (bottom - top)))
            for i, v in enumerate(known)
            if np.isfinite(v)
        ]
        colour = COLOURS[index % len(COLOURS)]
        cv2.polylines(panel, [np.asarray(points, dtype=np.int32).reshape(-1, 1, 2)], False, colour, 2, cv2.LINE_AA)
        for point in points:
            cv2.circle(panel, point, 2, colour, -1, cv2.LINE_AA)
        panels.append(panel)
    return np.concatenate(panels)


def save(image: Image, path: Path) -> None:
    """Write a picture. Raises ResourceError."""
    if not cv2.imwrite(str(path), image):
        raise ResourceError(f"{path} cannot be written: no space or no permission")


def _legend(image: Image, names: Sequence[str], x: int, y: int) -> None:
    for i, name in enumerate(names):
        cv2.rectangle(image, (x, y - 10), (x + 12, y + 2), COLOURS[i % len(COLOURS)], -1)
        _write(image, name, x + 18, y)
        x += 18 + _width(name) + MARGIN


def _write(image: Image, text: str, x: int, y: int) -> None:
    cv2.putText(image, text, (x, y), FONT, SCALE, INK, 1, cv2.LINE_AA)


def _width(text: str) -> int:
    return cv2.getTextSize(text, FONT, SCALE, 1)[0][0]
