"""A camera that moves over drawn skin: the synthetic source, exact to the pixel and the box.

One large canvas is drawn once; a frame is one affine window of it, so frames come faster than any
pipeline takes them, in any order, and the same (seed, i) always gives the same pixels.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.drawn.lesions import DrawnLesion, Outline
from derma_common.drawn.photography import defocus, motion_blur
from derma_common.drawn.scene import draw_skin
from derma_common.drawn.skin import Image

CANVAS_FACTOR = 2.2  # canvas side / frame side
CANVAS_MAX_PX = 2_600_000  # a larger canvas is drawn coarser: it would take seconds and look the same
ZOOM = 0.16  # half range of log zoom
TURN = 0.16  # half range of the rotation, radians
VISIBLE_SHARE = 0.4  # of a lesion's area; with less in the frame it has no box
FIELD_WIDTH_MM = 105.0  # width of skin in view at zoom 1


class SyntheticCamera:
    """A recording of `frames` frames of drawn skin with `lesions` lesions on it."""

    def __init__(
        self,
        seed: int,
        frames: int,
        width: int = 640,
        height: int = 480,
        lesions: int = 10,
        *,
        fitzpatrick: float | None = None,
        kinds: tuple[str, ...] | None = None,
        background: bool | None = None,
        blurred_moments: bool = False,
        noise: float = 2.0,
    ) -> None:
        """Draw the canvas (about half a second). `noise` is the sensor's, in grey levels.

        `blurred_moments`: now and then the lens hunts for focus or the hand jerks.
        """
        if frames < 1 or width < 16 or height < 16 or lesions < 0:
            raise ValueError(
                f"a camera needs frames >= 1, sides >= 16 px, lesions >= 0, got {frames} {width}x{height} {lesions}"
            )
        self.seed, self.frames, self.width, self.height = seed, frames, width, height
        rng = np.random.default_rng(seed)
        self._blurred = blurred_moments
        full = CANVAS_FACTOR**2 * width * height
        self._detail = min(1.0, (CANVAS_MAX_PX / full) ** 0.5)  # canvas px per frame px at zoom 1
        wide, tall = (round(CANVAS_FACTOR * self._detail * side) for side in (width, height))
        self.scene = draw_skin(
            rng,
            wide,
            tall,
            px_per_mm=width * self._detail / FIELD_WIDTH_MM,
            lesions=lesions,
            kinds=kinds,
            fitzpatrick=fitzpatrick,
            background=background,
        )
        self._phase = rng.uniform(0, 2 * np.pi, 8)
        self._period = rng.uniform(0.8, 1.25, 8) * (260, 110, 330, 140, 300, 90, 240, 100)
        pad = 64
        noise_field = rng.normal(0, noise, (height + pad, width + pad, 3))
        self._lighter = np.clip(np.round(noise_field), 0, 60).astype(np.uint8)
        self._darker = np.clip(np.round(-noise_field), 0, 60).astype(np.uint8)
        self._noise_pad = pad if noise > 0 else 0

    @property
    def lesions(self) -> tuple[DrawnLesion, ...]:
        """All lesions on the canvas, seen or not, in canvas px; `frame_lesions` numbers them by their place here."""
        return self.scene.lesions

    def frame(self, i: int) -> tuple[Image, npt.NDArray[np.float32], tuple[str, ...]]:
        """Return frame i: image (height, width, 3) uint8 BGR, boxes (N, 4) xyxy px, kind of each box."""
        boxes, indices = self.frame_lesions(i)
        kinds = tuple(self.scene.lesions[n].kind for n in indices)
        return self.image(i), boxes, kinds

    def image(self, i: int) -> Image:
        """Return the pixels (height, width, 3) uint8 BGR of frame i."""
        matrix = self.pose(i)
        size = (self.width, self.height)
        image = np.asarray(cv2.warpAffine(self.scene.image, matrix, size, flags=cv2.INTER_LINEAR), dtype=np.uint8)
        if self._blurred:
            image = self._blur(i, image, matrix)
        if self._noise_pad:
            x, y = np.random.default_rng((self.seed, i)).integers(0, self._noise_pad, 2)
            window = (slice(y, y + self.height), slice(x, x + self.width))
            image = np.asarray(cv2.add(image, self._lighter[window]), dtype=np.uint8)
            image = np.asarray(cv2.subtract(image, self._darker[window]), dtype=np.uint8)
        return image

    def frame_lesions(self, i: int) -> tuple[npt.NDArray[np.float32], tuple[int, ...]]:
        """Return the boxes (N, 4) xyxy px of frame i and which lesion each is (place in `lesions`)."""
        matrix = self.pose(i)
        boxes, indices = [], []
        for n, lesion in enumerate(self.scene.lesions):
            outline = np.asarray(lesion.outline @ matrix[:, :2].T + matrix[:, 2], dtype=np.float32)
            box = visible_box(outline, self.width, self.height)
            if box is not None:
                boxes.append(box)
                indices.append(n)
        return np.asarray(boxes, dtype=np.float32).reshape(-1, 4), tuple(indices)

    def pose(self, i: int) -> npt.NDArray[np.float64]:
        """Return the affine map (2, 3) from canvas px to px of frame i."""
        if not 0 <= i < self.frames:
            raise IndexError(f"frame {i} of a recording of {self.frames} frames")
        slow = np.sin(2 * np.pi * i / self._period + self._phase)
        x, y, log_zoom, turn = slow[0::2] * 0.8 + slow[1::2] * 0.2
        zoom, turn = float(np.exp(ZOOM * log_zoom)), float(TURN * turn)
        canvas_h, canvas_w = self.scene.image.shape[:2]
        scale = zoom / self._detail
        reach_x = (self.width * np.cos(turn) + self.height * abs(np.sin(turn))) / 2 / scale + 1
        reach_y = (self.height * np.cos(turn) + self.width * abs(np.sin(turn))) / 2 / scale + 1
        centre = np.asarray([canvas_w / 2 + x * (canvas_w / 2 - reach_x), canvas_h / 2 + y * (canvas_h / 2 - reach_y)])
        linear = scale * np.asarray([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        shift = np.asarray([self.width / 2, self.height / 2]) - linear @ centre
        return np.column_stack([linear, shift])

    def _blur(self, i: int, image: Image, matrix: npt.NDArray[np.float64]) -> Image:
        """Blur a few moments of the recording: focus is lost and found, or the hand jerks."""
        lost = max(0.0, float(np.sin(2 * np.pi * i / 83 + self._phase[0])) - 0.9) / 0.1
        jerk = max(0.0, float(np.sin(2 * np.pi * i / 59 + self._phase[1])) - 0.93) / 0.07
        image = defocus(image, lost * self.width / 260)
        if jerk > 0:
            other = self.pose(i + 1 if i + 1 < self.frames else i - 1) if self.frames > 1 else matrix
            moved = (other - matrix) @ np.asarray([*self._centre(matrix), 1.0])
            reach = jerk * self.width / 45 / max(1e-6, float(np.hypot(*moved)))
            image = motion_blur(image, float(moved[0] * reach), float(moved[1] * reach))
        return image

    def _centre(self, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        back = np.linalg.solve(matrix[:, :2], np.asarray([self.width / 2, self.height / 2]) - matrix[:, 2])
        return np.asarray(back)


def visible_box(outline: Outline, width: int, height: int) -> tuple[float, float, float, float] | None:
    """Return the bounds of the part of an outline (P, 2) px that lies in the frame, None if that is < 40 % of it."""
    (x1, y1), (x2, y2) = outline.min(axis=0), outline.max(axis=0)
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        return None
    if x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height:
        return float(x1), float(y1), float(x2), float(y2)
    seen = clip_polygon(outline, width, height)
    if len(seen) < 3 or polygon_area(seen) < VISIBLE_SHARE * polygon_area(outline):
        return None
    (x1, y1), (x2, y2) = np.clip(seen.min(axis=0), 0, None), np.minimum(seen.max(axis=0), (width, height))
    return float(x1), float(y1), float(x2), float(y2)


def clip_polygon(points: Outline, width: float, height: float) -> Outline:
    """Cut a polygon (P, 2) px to the frame (Sutherland and Hodgman 1974); returns (Q, 2), Q may be 0."""
    for axis, sign, limit in ((0, 1.0, 0.0), (0, -1.0, -width), (1, 1.0, 0.0), (1, -1.0, -height)):
        if not len(points):
            break
        inside = sign * points[:, axis] - limit  # ≥ 0 inside
        following, inside_next = np.roll(points, -1, axis=0), np.roll(inside, -1)
        kept: list[npt.NDArray[np.float32]] = []
        for p, q, a, b in zip(points, following, inside, inside_next, strict=True):
            if a >= 0:
                kept.append(p)
            if (a >= 0) != (b >= 0):
                kept.append(p + (q - p) * np.float32(a / (a - b)))
        points = np.asarray(kept, dtype=np.float32).reshape(-1, 2)
    return points


def polygon_area(points: Outline) -> float:
    """Return the area of a polygon (P, 2) in px² (the shoelace formula)."""
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
