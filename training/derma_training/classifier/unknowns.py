"""Pictures of what is none of the eight lesions: the data-driven class UNK.

Healthy skin out of phone frames and wide-field tiles, and drawn distractors (never drawn lesions).
Whole kinds stay out of training (HELD_OUT_KINDS), so that the figure for the unknown is honest.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from derma_common.preprocess import Image, cut
from derma_training.classifier.manifest import Part, part_of

HELD_OUT_KINDS = ("hand", "bubbles", "text")  # never trained on
HELD_OUT_TILES = 3  # the last tiles by name
SIZE_PX = 224
DRAWN_EACH = 130


@dataclass(frozen=True)
class Unknown:
    """One picture (SIZE_PX, SIZE_PX, 3) uint8 BGR without a lesion."""

    image: Image
    kind: str
    group: str
    part: Part


def unknowns(data: Path, seed: int = 0) -> Iterator[Unknown]:
    """Yield all unknowns: frames, tiles and the hand video under `data`, then the drawn ones."""
    rng = np.random.default_rng(seed)
    yield from _sweep(data / "normal_skin_sweep" / "frames", rng)
    yield from _tiles(data / "itobos_widefield", rng)
    yield from _hand(data / "video_hand", rng)
    yield from drawn(rng, DRAWN_EACH)


def _sweep(folder: Path, rng: np.random.Generator) -> Iterator[Unknown]:
    """Healthy forearm: the last third in time is the test part."""
    files = sorted(folder.glob("*.jpg"))
    for i, file in enumerate(files):
        frame = _read(file)
        group = f"sweep-{10 * i // len(files)}"
        part = part_of(group, "val" if i >= len(files) * 2 // 3 else "train")
        for _ in range(6):
            yield Unknown(cut(frame, _square(frame, rng, 90, 800), SIZE_PX), "sweep", group, part)


def _tiles(folder: Path, rng: np.random.Generator) -> Iterator[Unknown]:
    """Patches of wide-field tiles that touch neither a lesion nor an ambiguous spot."""
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
        records = sorted(csv.DictReader(stream), key=lambda record: record["file"])
    for i, record in enumerate(records):
        tile = _read(folder / record["file"])
        spots = [box[:4] for box in json.loads(record["boxes_px_x1y1x2y2_kind"])]
        spots += json.loads(record["ignore_boxes_px"] or "[]")
        part: Part = "test" if i >= len(records) - HELD_OUT_TILES else "train"
        for square in free_squares(tile, spots, rng, wanted=25):
            yield Unknown(cut(tile, square, SIZE_PX), "tile", record["file"], part)


def free_squares(
    image: Image, spots: list[list[float]], rng: np.random.Generator, wanted: int
) -> list[tuple[int, int, int, int]]:
    """Return up to `wanted` squares (x1, y1, x2, y2) px of image that touch none of the spots (x1, y1, x2, y2)."""
    found: list[tuple[int, int, int, int]] = []
    for _ in range(40 * wanted):
        x1, y1, x2, y2 = _square(image, rng, 48, 300)
        if all(x2 <= s[0] or s[2] <= x1 or y2 <= s[1] or s[3] <= y1 for s in spots):
            found.append((x1, y1, x2, y2))
        if len(found) == wanted:
            break
    return found


def _hand(folder: Path, rng: np.random.Generator) -> Iterator[Unknown]:
    """Every sixth frame of a hand and forearm: another camera, wholly held out."""
    for file in sorted(folder.glob("*.mp4")):
        video = cv2.VideoCapture(str(file))
        frames = 0
        while video.grab():
            if frames % 6 == 0:
                frame = np.asarray(video.retrieve()[1], dtype=np.uint8)
                yield Unknown(cut(frame, _square(frame, rng, 80, 600), SIZE_PX), "hand", file.stem, "test")
            frames += 1
        video.release()


def _square(image: Image, rng: np.random.Generator, low: int, high: int) -> tuple[int, int, int, int]:
    rows, columns = image.shape[:2]
    side = int(np.exp(rng.uniform(np.log(low), np.log(min(high, rows, columns)))))
    x1, y1 = int(rng.integers(0, columns - side + 1)), int(rng.integers(0, rows - side + 1))
    return x1, y1, x1 + side, y1 + side


def _read(file: Path) -> Image:
    return np.asarray(cv2.imread(str(file), cv2.IMREAD_COLOR), dtype=np.uint8)


def drawn(rng: np.random.Generator, each: int) -> Iterator[Unknown]:
    """Yield `each` drawn pictures of every kind in DRAWERS."""
    for kind, draw in DRAWERS.items():
        for i in range(each):
            group = f"{kind}-{i}"
            part: Part = "test" if kind in HELD_OUT_KINDS else part_of(group, "train")
            yield Unknown(draw(rng), kind, group, part)


def skin(rng: np.random.Generator) -> Image:
    """Draw bare skin of a random tone, from very light to very dark, with soft shading and grain."""
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
