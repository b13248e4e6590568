"""What is on skin and is no lesion: freckles, hair, the edge of the body, cloth and a room behind it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.drawn.noise import Field, fractal, smooth
from derma_common.drawn.skin import Image, Layers

FRECKLE_MAX_PX = 5.0  # freckles stay smaller than the smallest boxed lesion


def freckles(rng: np.random.Generator, layers: Layers, px_per_mm: float, per_cm2: float) -> None:
    """Scatter unboxed freckles and tiny red points, at most FRECKLE_MAX_PX across, paler than any nevus."""
    height, width = layers.light.shape
    number = rng.poisson(per_cm2 * height * width / (10 * px_per_mm) ** 2)
    spots = np.zeros((height, width), np.uint8)
    size = np.minimum(rng.uniform(0.3, 1.6, number) * px_per_mm, FRECKLE_MAX_PX)
    for x, y, diameter, strength in zip(
        rng.uniform(0, width, number),
        rng.uniform(0, height, number),
        size,
        rng.uniform(60, 255, number),
        strict=True,
    ):
        long, turn = diameter * rng.uniform(0.7, 1.0), rng.uniform(0, 180)
        axes = (max(8, round(diameter * 8)), max(8, round(long * 8)))
        centre = (round(x * 16), round(y * 16))
        cv2.ellipse(spots, centre, axes, turn, 0, 360, float(strength), -1, cv2.LINE_AA, shift=4)
    soft = cv2.GaussianBlur(spots, (0, 0), 0.8).astype(np.float32) / 255
    layers.melanin += soft * np.float32(rng.uniform(0.15, 0.4))
    if rng.random() < 0.3:
        layers.blood += soft * np.float32(rng.uniform(0.1, 0.4))


def hair(rng: np.random.Generator, image: Image, px_per_mm: float, per_cm2: float, length_mm: float) -> Image:
    """Draw hairs over image (H, W, 3): curved, roughly parallel, thinner than a pixel where the picture is coarse."""
    height, width = image.shape[:2]
    number = rng.poisson(per_cm2 * height * width / (10 * px_per_mm) ** 2)
    if not number:
        return image
    roots = rng.uniform((0, 0), (width, height), (number, 2))
    flow = smooth(rng, height // 8 + 1, width // 8 + 1, max(height, width) / 20)
    local = flow[(roots[:, 1] // 8).astype(int), (roots[:, 0] // 8).astype(int)]
    heading = rng.uniform(0, 2 * np.pi) + 0.5 * local + rng.normal(0, 0.25, number)
    bend = rng.normal(0, 0.5, number)
    reach = length_mm * px_per_mm * rng.lognormal(0, 0.35, number)
    along = np.linspace(0, 1, 9)
    turning = heading[:, None] + bend[:, None] * along
    steps = np.stack([np.cos(turning), np.sin(turning)], axis=2) * (reach / 8)[:, None, None]
    paths = np.round((roots[:, None, :] + np.cumsum(steps, axis=1)) * 16).astype(np.int32)
    cover = np.zeros((height, width), np.uint8)
    thick = max(1, round(px_per_mm * 0.06))
    shares = (0.35, 0.6, 1.0)  # thin ones first, so that thick ones stay on top
    for part, share in zip(np.array_split(paths, 3), shares, strict=True):
        cv2.polylines(cover, list(part), False, round(255 * share), thick, cv2.LINE_AA, shift=4)
    strength = float(np.clip(0.06 * px_per_mm, 0.25, 1.0)) * rng.uniform(0.4, 0.95)
    colour = np.asarray((25, 32, 45), np.float32) * np.float32(rng.uniform(0.4, 1.6))
    if rng.random() < 0.12:
        colour = np.asarray((150, 175, 190), np.float32)  # fair hair on darker skin, grey hair
    return blend(image, colour, cover, strength)


def blend(image: Image, colour: npt.NDArray[np.float32], cover: npt.NDArray[np.uint8], strength: float) -> Image:
    """Lay a colour (3,) or picture (H, W, 3) over image where cover (H, W) uint8 says so."""
    share = (cover.astype(np.float32) * np.float32(strength / 255))[..., None]
    below = image.astype(np.float32)
    return np.asarray(below + (colour.astype(np.float32) - below) * share, dtype=np.uint8)


def body_edge(rng: np.random.Generator, height: int, width: int) -> tuple[Field, Field]:
    """Choose where the body ends: return the fading light (H, W) of its turning away and its cover (H, W) in [0, 1].

    The body is a limb: a straight or slightly bent band across the picture, one or both edges in view.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    across = (x - width / 2) * np.float32(np.cos(angle)) + (y - height / 2) * np.float32(np.sin(angle))
    along = (y - height / 2) * np.float32(np.cos(angle)) - (x - width / 2) * np.float32(np.sin(angle))
    reach = max(height, width) / 2
    across += np.float32(rng.normal(0, 0.12)) * along * along / np.float32(reach)
    half = rng.uniform(0.55, 1.0) * reach
    middle = rng.uniform(-0.5, 0.5) * reach
    out = np.abs(across - np.float32(middle)) / np.float32(half)
    light = 0.35 + 0.65 * np.sqrt(np.clip(1 - out**4, 0, 1))
    cover = np.clip((1 - out) * np.float32(half / 1.5), 0, 1)
    return np.asarray(light, dtype=np.float32), np.asarray(cover, dtype=np.float32)


def backdrop(rng: np.random.Generator, height: int, width: int) -> Image:
    """Draw what lies beside the body (H, W, 3): a dark room or a bench with things on it, or cloth."""
    shade = rng.uniform(5, 70) if rng.random() < 0.6 else rng.uniform(60, 200)
    base = np.clip(shade * rng.uniform(0.8, 1.2, 3), 0, 255)
    field = np.full((height, width, 3), base, np.float32)
    field *= (1 + 0.12 * fractal(rng, height, width, max(height, width) / 4, 3))[..., None]
    things = np.zeros((height, width), np.uint8)
    for _ in range(rng.integers(0, 7)):
        things[:] = 0
        _thing(rng, things)
        colour = np.clip(rng.uniform(0, 230) * rng.uniform(0.6, 1.3, 3), 0, 255).astype(np.float32)
        soft = cv2.GaussianBlur(things, (0, 0), rng.uniform(0.5, 3.0)).astype(np.float32)[..., None] / 255
        field += (colour - field) * soft
    if rng.random() < 0.4:
        field *= _weave(rng, height, width)[..., None]
    return np.asarray(np.clip(field, 0, 255), dtype=np.uint8)


def _thing(rng: np.random.Generator, canvas: npt.NDArray[np.uint8]) -> None:
    height, width = canvas.shape
    x, y = (int(v) for v in rng.uniform((0, 0), (width, height)))
    a, b = (int(v) for v in np.exp(rng.uniform(np.log(6), np.log(max(height, width) / 2), 2)))
    if rng.random() < 0.5:
        cv2.ellipse(canvas, (x, y), (a // 2 + 2, b // 2 + 2), rng.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    else:
        corners = cv2.boxPoints(((x, y), (a, b), rng.uniform(0, 90))).astype(np.int32)
        cv2.fillPoly(canvas, [corners], 255, cv2.LINE_AA)


def _weave(rng: np.random.Generator, height: int, width: int) -> Field:
    """Return the light and dark (H, W) of woven or striped cloth, about 1."""
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    period, depth = rng.uniform(2.5, 14), rng.uniform(0.05, 0.3)
    stripes = np.sin(2 * np.pi * x / period) * (np.sin(2 * np.pi * y / period) if rng.random() < 0.6 else 1)
    return np.asarray(1 + depth * (stripes + 0.4 * smooth(rng, height, width, 2.0)), dtype=np.float32)
