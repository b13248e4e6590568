"""What else a picture of a body shows: pores, folds, ink, plasters, cloth over the skin, shine, shadows, JPEG.

Each is an option laid on a finished picture (H, W, 3) uint8 BGR. None of it is a lesion; what hides skin also returns
its cover, so that a box under it can be dropped.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.drawn.details import blend
from derma_common.drawn.noise import Field, fractal, smooth
from derma_common.drawn.skin import Image

Mask = npt.NDArray[np.uint8]  # (H, W), 255 where something lies


def pores(rng: np.random.Generator, image: Image, px_per_mm: float, per_cm2: float = 90.0) -> Image:
    """Prick the skin with pores of 0.1 to 0.3 mm, each a dark dot; from afar they blur into a fine grain."""
    height, width = image.shape[:2]
    number = int(per_cm2 * height * width / (10 * px_per_mm) ** 2)
    field = np.zeros((height, width), np.float32)
    rows, columns = rng.integers(0, height, number), rng.integers(0, width, number)
    field[rows, columns] = rng.uniform(0.3, 1.0, number)
    sigma = max(0.5, 0.1 * px_per_mm * rng.uniform(0.7, 1.4))
    depth = rng.uniform(0.06, 0.2) * min(1.0, px_per_mm / 8)
    field = cv2.GaussianBlur(field, (0, 0), sigma) * np.float32(2 * np.pi * sigma**2 * depth)
    return _lit(image, 1 - np.minimum(field, np.float32(0.5)))


def folds(rng: np.random.Generator, image: Image, px_per_mm: float) -> Image:
    """Draw a few folds of the skin, as over knuckles and on palms and necks: long dark lines with a lit side."""
    height, width = image.shape[:2]
    canvas = np.zeros((height, width), np.uint8)
    heading = rng.uniform(0, np.pi)
    for _ in range(rng.integers(1, 9)):
        steps = 24
        turning = heading + rng.normal(0, 0.25) + np.cumsum(rng.normal(0, 0.09, steps))
        stride = px_per_mm * rng.uniform(0.5, 2.5)
        path = np.cumsum(stride * np.stack([np.cos(turning), np.sin(turning)], axis=1), axis=0)
        path += rng.uniform((0, 0), (width, height)) - path.mean(axis=0)
        thick = max(1, round(px_per_mm * rng.uniform(0.1, 0.4)))
        points = np.round(path * 16).astype(np.int32)
        depths = rng.uniform(90, 255) * np.sin(np.linspace(0, np.pi, steps - 1)) ** 0.7  # a fold fades out
        for start, end, depth in zip(points, points[1:], depths, strict=False):
            cv2.line(canvas, start.tolist(), end.tolist(), float(depth), thick, cv2.LINE_AA, shift=4)
    soft = cv2.GaussianBlur(canvas, (0, 0), max(0.8, 0.25 * px_per_mm)).astype(np.float32) / 255
    shift = max(1, round(0.4 * px_per_mm))
    lit = np.roll(soft, (shift, shift), axis=(0, 1))
    depth = np.float32(rng.uniform(0.2, 0.7))
    return _lit(image, 1 - depth * soft + depth * np.float32(0.25) * lit)


def shine(rng: np.random.Generator, image: Image, px_per_mm: float) -> Image:
    """Add the mirror image of a lamp: one to four white patches, broken up by the relief of oily or wet skin."""
    height, width = image.shape[:2]
    glare = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(1, 5)):
        centre = tuple(int(v) for v in rng.uniform((0, 0), (width, height)))
        axes = tuple(int(max(2, v)) for v in np.exp(rng.uniform(np.log(2), np.log(18), 2)) * px_per_mm / 2)
        cv2.ellipse(glare, centre, axes, rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    soft = cv2.GaussianBlur(glare, (0, 0), max(1.0, px_per_mm * rng.uniform(0.8, 3.0))).astype(np.float32) / 255
    grain = np.clip(0.8 + 0.3 * fractal(rng, height, width, max(1.5, 0.6 * px_per_mm), 2), 0, 1.5)
    strength = np.asarray(soft * grain * np.float32(rng.uniform(60, 200)), np.float32)
    return np.asarray(np.clip(image + strength[..., None], 0, 255), np.uint8)


def shadow(rng: np.random.Generator, image: Image) -> Image:
    """Let something between lamp and skin cast a shadow: a half plane or a rounded shape, soft or sharp at its edge."""
    height, width = image.shape[:2]
    side = max(height, width)
    cast = np.zeros((height, width), np.uint8)
    centre = rng.uniform((-0.1 * width, -0.1 * height), (1.1 * width, 1.1 * height))
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        along = np.asarray([np.cos(angle), np.sin(angle)]) * 3 * side
        away = np.asarray([-np.sin(angle), np.cos(angle)]) * 3 * side
        corners = np.stack([centre + along, centre + along + away, centre - along + away, centre - along])
        cv2.fillPoly(cast, [np.round(corners).astype(np.int32)], 255)
    else:
        axes = tuple(int(v) for v in rng.uniform(0.1, 0.5, 2) * side)
        cv2.ellipse(cast, tuple(int(v) for v in centre), axes, rng.uniform(0, 180), 0, 360, 255, -1)
    soft = cv2.GaussianBlur(cast, (0, 0), side * rng.uniform(0.004, 0.06)).astype(np.float32) / 255
    return _lit(image, np.asarray(1 - rng.uniform(0.2, 0.65) * soft, np.float32))


def cloth(rng: np.random.Generator, image: Image) -> tuple[Image, Mask]:
    """Lay clothing over one side of the picture, with a hem, folds and the shadow it throws; returns its cover too."""
    height, width = image.shape[:2]
    side = max(height, width)
    angle = rng.uniform(0, 2 * np.pi)
    normal = np.asarray([np.cos(angle), np.sin(angle)])
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    out = (x - width / 2) * np.float32(normal[0]) + (y - height / 2) * np.float32(normal[1])
    wave = cv2.GaussianBlur(smooth(rng, height, width, side / 3), (0, 0), side / 12)
    out += np.float32(0.05 * side) * wave  # a hem is never straight
    out -= np.float32(rng.uniform(0.1, 0.45) * side)
    cover = np.asarray(np.clip(out * 255 + 128, 0, 255), np.uint8)
    throw = np.clip(1 + out / np.float32(0.02 * side), 0, 1) * np.float32(rng.uniform(0.1, 0.5))
    shaded = _lit(image, 1 - throw)
    return blend(shaded, _fabric(rng, out, side), cover, 1.0), cover


def _fabric(rng: np.random.Generator, out: Field, side: int) -> npt.NDArray[np.float32]:
    """Draw woven cloth (H, W, 3) of one colour, plain, striped or dotted, its hem along out = 0."""
    height, width = out.shape
    colour = np.clip(rng.uniform(10, 235) * rng.uniform(0.7, 1.3, 3), 0, 255).astype(np.float32)
    light = 1 + 0.12 * fractal(rng, height, width, side / 5, 3)
    thread = rng.uniform(2.5, 7.0)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    light = light * (1 + rng.uniform(0.02, 0.12) * np.sin(2 * np.pi * x / thread) * np.sin(2 * np.pi * y / thread))
    hem = rng.uniform(0.015, 0.04) * side
    light = light * (1 - 0.25 * np.exp(-(((out - hem) / max(1.0, 0.1 * hem)) ** 2)))
    fabric = np.asarray(colour * light[..., None], np.float32)
    if rng.random() < 0.4:
        other = np.clip(rng.uniform(10, 235) * rng.uniform(0.7, 1.3, 3), 0, 255).astype(np.float32)
        period = rng.uniform(0.02, 0.12) * side
        wave_x, wave_y = np.cos(2 * np.pi * x / period), np.cos(2 * np.pi * y / period)
        pattern = wave_x * wave_y > 0.6 if rng.random() < 0.5 else wave_x + 0 * y > rng.uniform(-0.5, 0.8)
        fabric = np.where(pattern[..., None], other * light[..., None], fabric)
    return np.asarray(np.clip(fabric, 0, 255), np.float32)


def ink(rng: np.random.Generator, image: Image, px_per_mm: float) -> tuple[Image, Mask]:
    """Draw what a pen leaves on skin: rings, ticks, dots or a line of writing; returns its cover too."""
    height, width = image.shape[:2]
    cover = np.zeros((height, width), np.uint8)
    thick = max(1, round(px_per_mm * rng.uniform(0.4, 1.2)))
    for _ in range(rng.integers(1, 4)):
        x, y = rng.uniform((0, 0), (width, height))
        reach = px_per_mm * rng.uniform(3, 14)
        kind = rng.integers(3)
        if kind == 0:
            axes = (max(2, round(reach)), max(2, round(reach * rng.uniform(0.6, 1.0))))
            cv2.ellipse(
                cover, (int(x), int(y)), axes, rng.uniform(0, 180), 0, rng.uniform(200, 380), 255, thick, cv2.LINE_AA
            )
        elif kind == 1:
            across, down = rng.normal(0, reach, 2)
            cv2.line(cover, (int(x), int(y)), (int(x + across), int(y + down)), 255, thick, cv2.LINE_AA)
        else:
            steps = np.add(rng.normal(0, reach / 5, (14, 2)), (reach / 5, 0))
            path = np.round(np.add((x, y), np.cumsum(steps, axis=0))).astype(np.int32)
            cv2.polylines(cover, [path], False, 255, thick, cv2.LINE_AA)
    colour = np.asarray(((90, 40, 30), (60, 30, 90), (40, 40, 40))[int(rng.integers(3))], np.float32)
    return blend(image, colour, cover, rng.uniform(0.5, 0.9)), cover


def plaster(rng: np.random.Generator, image: Image, px_per_mm: float) -> tuple[Image, Mask]:
    """Stick a plaster on: a rounded strip, pale or skin-coloured, with a pad in its middle; returns its cover too."""
    height, width = image.shape[:2]
    x, y = (float(v) for v in rng.uniform((0, 0), (width, height)))
    long, wide = px_per_mm * rng.uniform(18, 60), px_per_mm * rng.uniform(8, 20)
    turn = rng.uniform(0, 180)
    cover, pad = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    for canvas, share in ((cover, 1.0), (pad, 0.35)):
        corners = cv2.boxPoints(((x, y), (long * share, wide * (0.8 if share < 1 else 1.0)), turn))
        cv2.fillPoly(canvas, [np.round(corners).astype(np.int32)], 255, cv2.LINE_AA)
    radius = max(1, int(wide / 6)) * 2 + 1
    cover = np.asarray(cv2.GaussianBlur(cover, (radius, radius), 0) > 127, np.uint8) * np.uint8(255)
    colour = rng.uniform(0.6, 1.0) * np.asarray((190, 215, 240), np.float32)
    grain = 0.92 + 0.04 * smooth(rng, height, width, max(1.5, 0.4 * px_per_mm)) - 0.1 * (pad > 127)
    strip = np.asarray(np.clip(colour * grain[..., None], 0, 255), np.float32)
    return blend(image, strip, cover, 1.0), cover


def jpeg(image: Image, quality: int) -> Image:
    """Return image (H, W, 3) as it comes back from a JPEG of this quality, 1 to 100."""
    _, packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)


def _lit(image: Image, light: npt.NDArray[np.floating]) -> Image:
    return np.asarray(np.clip(image * light[..., None], 0, 255), np.uint8)
