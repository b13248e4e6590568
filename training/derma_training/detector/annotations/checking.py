"""From what labels say to boxes in px of the upright picture: refuse, cut, scale, turn, and report it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.boxes import Boxes
from derma_common.errors import SourceError
from derma_common.preprocess import Image
from derma_common.recordings import read_picture
from derma_training.detector.annotations.annotated import Annotated, Box, Label
from derma_training.detector.annotations.report import Problem, Report

EDGE_PX = 1.0  # so far over the edge is rounding, not worth a line
SAME_SHAPE = 0.02  # relative difference of aspect ratios that rounding a size can make

FARTHEST = 1e9  # what is farther off, or no number, is no coordinate

Frame = tuple[int, int]  # width, height, px


def size_of(label: Label) -> Frame | SourceError:
    """Return width and height of a label's picture as the pipeline would show it, or why it cannot be decoded."""
    try:
        height, width = read_picture(label.picture).shape[:2]
    except SourceError as error:
        return error
    return width, height


def check(label: Label, size: Frame, classes: int | None, report: Report) -> Annotated | None:
    """Return the labelled picture of `size` (width, height), None when its labels are of another picture.

    `classes` is the number of known classes, None when nobody says.
    """
    to_px = _placing(label, size, report)
    if to_px is None:
        return None
    boxes, kinds = _kept(to_px, label.boxes, label.classes, classes, size, label.where, report)
    ignored, _ = _kept(to_px, label.ignored, [0] * len(label.ignored), None, size, label.where, report)
    return Annotated(
        label.picture, *size, boxes, np.asarray(kinds, np.int64), ignored, label.source, label.group, label.split
    )


def _placing(label: Label, size: Frame, report: Report) -> npt.NDArray[np.float64] | None:
    """Return the affine map (2, 3) from the label's coordinates to px of the upright picture, None if there is none."""
    width, height = size
    scale = np.asarray([[width, 0, 0], [0, height, 0]], np.float64)
    if label.normalised or label.stated is None:
        return scale if label.normalised else np.eye(2, 3)
    said_w, said_h = label.stated
    share = np.diag([1 / said_w, 1 / said_h, 1.0])  # px of the stated size → shares of it
    if (said_w, said_h) == size:
        return np.eye(2, 3)
    if (said_h, said_w) == size:
        turn = _turn_of(label)
        if turn is not None:
            report.add(Problem.TURNED, label.where)
            return np.asarray(scale @ turn @ share)
    if abs(said_w * height - said_h * width) > SAME_SHAPE * said_h * width:
        report.add(Problem.SHAPE, f"{label.where}: {said_w}x{said_h}, the picture is {width}x{height}")
        return None
    report.add(Problem.SCALED, f"{label.where}: {said_w}x{said_h}, the picture is {width}x{height}")
    return np.asarray(scale @ share)


# how EXIF may stand a picture up when it exchanges width and height, and where a point (x, y) in shares goes
_TURNS: tuple[tuple[Callable[[Image], Image], tuple[tuple[int, int, int], ...]], ...] = (
    (lambda image: np.rot90(image, -1), ((0, -1, 1), (1, 0, 0))),
    (lambda image: np.rot90(image, 1), ((0, 1, 0), (-1, 0, 1))),
    (lambda image: image.transpose(1, 0, 2), ((0, 1, 0), (1, 0, 0))),
    (lambda image: np.rot90(image, 2).transpose(1, 0, 2), ((0, -1, 1), (-1, 0, 1))),
)


def _turn_of(label: Label) -> npt.NDArray[np.float64] | None:
    """Return the map (3, 3) of shares by which EXIF turns a picture upright: read off the pixels of both."""
    upright = read_picture(label.picture)
    stored: Image | None = cv2.imread(str(label.picture), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)  # type: ignore[assignment]
    if stored is None or stored.shape == upright.shape:
        return None
    for turned, matrix in _TURNS:
        if np.array_equal(turned(stored), upright):
            return np.asarray([*matrix, (0, 0, 1)], np.float64)
    return None


def _kept(
    to_px: npt.NDArray[np.float64], boxes: Sequence[Box], kinds: Sequence[int], classes: int | None, size: Frame,
    where: str, report: Report,
) -> tuple[Boxes, list[int]]:  # fmt: skip
    """Return the boxes (N, 4) xyxy px that are worth keeping, cut at the edge, and their classes."""
    kept: list[npt.NDArray[np.float64]] = []
    kept_kinds: list[int] = []
    seen: set[tuple[Box, int]] = set()
    for number, (box, kind) in enumerate(zip(boxes, kinds, strict=True), 1):
        place = f"{where}, box {number}"
        corners = np.asarray(box, np.float64).reshape(2, 2)
        problem = _refusal(corners, kind, classes, (box, kind) in seen)
        if problem is None:
            seen.add((box, kind))
            points = corners @ to_px[:, :2].T + to_px[:, 2]
            whole = np.concatenate([points.min(axis=0), points.max(axis=0)])
            cut = np.clip(whole, 0, [*size, *size])
            if (cut[2:] > cut[:2]).all():
                if np.abs(cut - whole).max() > EDGE_PX:
                    report.add(Problem.CLIPPED, place)
                kept.append(cut)
                kept_kinds.append(kind)
                continue
            problem = Problem.OUTSIDE
        report.add(problem, place)
    return np.asarray(kept, np.float32).reshape(-1, 4), kept_kinds


def _refusal(corners: npt.NDArray[np.float64], kind: int, classes: int | None, repeated: bool) -> Problem | None:
    """Say what is wrong with a box of corners (2, 2) whatever its picture is."""
    if not (np.abs(corners) < FARTHEST).all():
        return Problem.NOT_A_NUMBER
    if not (corners[1] > corners[0]).all():
        return Problem.EMPTY
    if kind < 0 or (classes is not None and kind >= classes):
        return Problem.CLASS
    return Problem.REPEATED if repeated else None
