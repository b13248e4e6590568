"""Drawn pictures of what is no lesion: skin, cloth, rulers and the like, for the class UNK."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.errors import ConfigError
from derma_common.preprocess import Image
from derma_training.classifier.prepare.found import Found, Reading

SIZE_PX = 224
DRAWN_EACH = 130


def read_drawn(kinds: Path, reading: Reading) -> list[Found]:
    """Return DRAWN_EACH pictures of every kind named in `kinds`, or of "all". Raises ConfigError: unknown kind."""
    names = list(DRAWERS) if kinds.name == "all" else kinds.name.split(",")
    strange = sorted(set(names) - set(DRAWERS))
    if strange:
        raise ConfigError(f"nothing called {', '.join(strange)} can be drawn; there are: all, {', '.join(DRAWERS)}")
    found = []
    for name in names:
        for i in range(DRAWN_EACH):
            seed = (reading.seed, list(DRAWERS).index(name), i)
            found.append(Found(f"{name}-{i}", "UNK", partial(draw, name, seed), source=f"drawn-{name}"))
    return found


def draw(kind: str, seed: tuple[int, ...]) -> Image:
    """Draw one picture (SIZE_PX, SIZE_PX, 3) uint8 BGR of a kind in DRAWERS."""
    return DRAWERS[kind](np.random.default_rng(seed))


def skin(rng: np.random.Generator) -> Image:
    """Draw bare skin of a random tone, from very light to very dark, with soft shading and grain: (224, 224, 3) BGR."""
    tone = rng.uniform(0.0, 1.0)
    light, dark = np.asarray([190.0, 205.0, 238.0]), np.asarray([30.0, 42.0, 66.0])
    base = light + (dark - light) * tone + rng.normal(0, 8, 3)
    return _shaded(base, rng, softness=rng.uniform(3, 25), grain=rng.uniform(1, 7))


def _shaded(colour: npt.NDArray[np.float64], rng: np.random.Generator, softness: float, grain: float) -> Image:
    coarse = rng.normal(0, 1, (6, 6)).astype(np.float32)
    shade = cv2.resize(coarse, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_CUBIC)[..., None] * softness
    noise = rng.normal(0, grain, (SIZE_PX, SIZE_PX, 1))
    return np.clip(colour + shade + noise, 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return rng.uniform(0, 255, 3)


def _plain(rng: np.random.Generator) -> Image:
    return _shaded(_colour(rng), rng, softness=rng.uniform(0, 30), grain=rng.uniform(0, 6))


def _hair(rng: np.random.Generator) -> Image:
    image = skin(rng)
    shade = rng.uniform(0, 90, 3)
    for _ in range(int(rng.integers(3, 40))):
        start, end = rng.uniform(-20, SIZE_PX + 20, 2), rng.uniform(-20, SIZE_PX + 20, 2)
        bend = (start + end) / 2 + rng.normal(0, 25, 2)
        t = np.linspace(0, 1, 24)[:, None]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
        points = [curve.round().astype(np.int32)]
        cv2.polylines(image, points, False, shade.tolist(), int(rng.integers(1, 4)), cv2.LINE_AA)
    return image


def _ruler(rng: np.random.Generator) -> Image:
    image = skin(rng)
    top, step = int(rng.integers(10, 150)), float(rng.uniform(4, 18))
    if rng.random() < 0.6:
        cv2.rectangle(image, (0, top), (SIZE_PX, min(SIZE_PX, top + 70)), rng.uniform(190, 255, 3).tolist(), -1)
    for i in range(int(SIZE_PX / step) + 1):
        x, length = int(i * step), 34 if i % 10 == 0 else 24 if i % 5 == 0 else 14
        cv2.line(image, (x, top), (x, top + length), (20, 20, 20), 1 + (step > 10), cv2.LINE_AA)
    return np.rot90(image, int(rng.integers(0, 4))).copy()


def _cloth(rng: np.random.Generator) -> Image:
    base = _plain(rng).astype(np.float64)
    y, x = np.mgrid[0:SIZE_PX, 0:SIZE_PX]
    period, angle = rng.uniform(3, 30), rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    weave = np.sin(2 * np.pi * along / period) + rng.uniform(0, 1) * np.sin(2 * np.pi * across / period)
    stripes = np.sign(weave) if rng.random() < 0.4 else weave
    return np.asarray(np.clip(base + stripes[..., None] * rng.uniform(4, 45, 3), 0, 255), dtype=np.uint8)


def _background(rng: np.random.Generator) -> Image:
    """A room behind the patient: flat shapes, soft focus."""
    image = _plain(rng)
    for _ in range(int(rng.integers(2, 9))):
        a, b = rng.integers(-40, SIZE_PX + 40, 2).tolist(), rng.integers(-40, SIZE_PX + 40, 2).tolist()
        cv2.rectangle(image, a, b, _colour(rng).tolist(), -1)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 6)), dtype=np.uint8)


def _bubbles(rng: np.random.Generator) -> Image:
    """Bubbles in the contact gel: thin bright rings with a highlight."""
    image = skin(rng)
    for _ in range(int(rng.integers(3, 30))):
        x, y, radius = (int(v) for v in rng.integers((0, 0, 3), (SIZE_PX, SIZE_PX, 24)))
        cv2.circle(image, (x, y), radius, rng.uniform(170, 255, 3).tolist(), 1, cv2.LINE_AA)
        cv2.circle(image, (x - radius // 2, y - radius // 2), max(1, radius // 5), (250, 250, 250), -1, cv2.LINE_AA)
    return image


def _text(rng: np.random.Generator) -> Image:
    image = skin(rng) if rng.random() < 0.5 else _plain(rng)
    for _ in range(int(rng.integers(1, 6))):
        word = "".join(rng.choice(list("ABCDEFGHKLMNPRSTXYZ0123456789-./ "), int(rng.integers(3, 14))))
        at = (int(rng.integers(-20, 90)), int(rng.integers(20, SIZE_PX)))
        cv2.putText(
            image,
            word,
            at,
            int(rng.integers(0, 6)),
            rng.uniform(0.5, 2),
            _colour(rng).tolist(),
            2,
            cv2.LINE_AA,
        )
    return image


DRAWERS: dict[str, Callable[[np.random.Generator], Image]] = {
    "skin": skin,
    "plain": _plain,
    "hair": _hair,
    "ruler": _ruler,
    "cloth": _cloth,
    "background": _background,
    "bubbles": _bubbles,
    "text": _text,
}
