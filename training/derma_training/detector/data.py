"""What a detector is trained on: annotated pictures of several data sets, split, cached and made into batches."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from derma_common.errors import ConfigError, SourceError
from derma_common.preprocess import Image, to_tensor
from derma_training.detector.annotations import Annotated, Decoded, read_annotations
from derma_training.detector.augment import Sample, augmented
from derma_training.detector.cfg import Anchors
from derma_training.detector.yolo_head import fit_anchors

Part = Literal["train", "tune", "test"]
LESION = "lesion"  # the one class, unless the data's own are kept
HELD_OUT = 0.15  # of the pictures without a split of their own go to "tune", and as many to "test"
FEWEST = 5  # pictures with a box: one each to tune and test, three to train
ANCHOR_PICTURES = 1000
CACHE_BYTES = 2 << 30  # decoded pictures kept in memory


@dataclass(frozen=True)
class DataSet:
    """The pictures of one folder and how often it is shown against the others."""

    pictures: tuple[Annotated, ...]
    share: float


@dataclass(frozen=True)
class Data:
    """All data sets with one list of class names, and what was wrong with them."""

    sets: tuple[DataSet, ...]
    classes: tuple[str, ...]
    report: tuple[str, ...]

    def part(self, part: Part) -> Data:
        """Return the data sets with the pictures of one part alone."""
        chosen = [replace(s, pictures=tuple(p for p in s.pictures if p.split == part)) for s in self.sets]
        return replace(self, sets=tuple(s for s in chosen if s.pictures))

    @property
    def pictures(self) -> tuple[Annotated, ...]:
        """The pictures of all data sets."""
        return tuple(picture for one in self.sets for picture in one.pictures)


def read_data(arguments: Sequence[str], keep_classes: bool = False) -> Data:
    """Read `DIR` or `DIR=SHARE` for each data set, and give every picture a part: "train", "tune" or "test".

    A share not given is the square root of the number of pictures, so that a large set does not drown a small one.
    Every box is a "lesion" unless the data's own classes are to be kept. Raises SourceError when nothing usable is
    there, ConfigError for a share that is no positive number.
    """
    sets, report = [], []
    names: dict[str, int] = {}
    for argument in arguments:
        folder, share = _folder_and_share(argument)
        found = read_annotations(folder)
        report += [f"{folder}: {line}" for line in found.report.lines()]
        called = found.classes if keep_classes else (LESION,) * len(found.classes)
        pictures = [_renumbered(picture, called, names) for picture in found.pictures]
        sets.append(DataSet(tuple(with_parts(pictures)), len(pictures) ** 0.5 if share is None else share))
    boxed = [picture.split for one in sets for picture in one.pictures if len(picture.boxes)]
    if len(boxed) < FEWEST or set(boxed) != set(get_args(Part)):
        raise SourceError(
            f"{', '.join(arguments)}: {len(boxed)} pictures have a box ({boxed.count('train')} to train, "
            f"{boxed.count('tune')} to tune, {boxed.count('test')} to test); at least {FEWEST} are needed, "
            "and one of each"
        )
    return Data(tuple(sets), tuple(names), tuple(report))


def _renumbered(picture: Annotated, called: Sequence[str], names: dict[str, int]) -> Annotated:
    """Return the picture with its classes numbered as in `names`, where new ones are added in the order they come."""
    classes = [names.setdefault(called[kind], len(names)) for kind in picture.classes]
    return replace(picture, classes=np.asarray(classes, np.int64))


def _folder_and_share(argument: str) -> tuple[Path, float | None]:
    """Take `DIR=SHARE` apart; a folder whose own name holds the sign is a folder."""
    folder, sign, share = argument.rpartition("=")
    if not sign or Path(argument).exists():
        return Path(argument), None
    try:
        value = float(share)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise ConfigError(f"--data {argument}: the share after = must be a positive number")
    return Path(folder), value


def with_parts(pictures: Sequence[Annotated]) -> list[Annotated]:
    """Give every picture its part in `split`, by the data's own split where it has one, else by group.

    A patient or lesion is in one part only. "val" is shared between tune and test where there is no "test".
    """
    own = {picture.split for picture in pictures}
    if "val" not in own and "test" not in own:
        return _cut_by_group(pictures)
    parts = []
    for picture in pictures:
        part = "train" if picture.split in ("train", "") else picture.split
        if part == "val":
            part = "tune" if "test" in own or _number_of(picture) % 2 else "test"
        elif part == "test" and "val" not in own:
            part = "tune" if _number_of(picture) % 2 else "test"
        parts.append(replace(picture, split=part))
    return parts


def _cut_by_group(pictures: Sequence[Annotated]) -> list[Annotated]:
    """Hold out whole groups, chosen by a hash of their names."""
    parts: dict[str, Part] = {}
    for boxed in (True, False):  # apart, so that the held-out parts have some of both
        some = [p for p in pictures if (len(p.boxes) > 0) == boxed]
        groups = sorted({_group(p): _number_of(p) for p in some if _group(p) not in parts}.items(), key=lambda g: g[1])
        held = max(1, round(HELD_OUT * len(groups))) if boxed or len(groups) >= FEWEST else 0
        for n, (name, _) in enumerate(groups):
            parts[name] = "tune" if n < held else "test" if n < 2 * held else "train"
    return [replace(p, split=parts[_group(p)]) for p in pictures]


def _group(picture: Annotated) -> str:
    return picture.group or picture.path.name


def _number_of(picture: Annotated) -> int:
    return zlib.crc32(_group(picture).encode())


@dataclass
class Feed:
    """Draws samples from data sets by their shares; decoded pictures stay in memory up to CACHE_BYTES."""

    data: Data
    _cache: dict[Path, Image] = field(default_factory=dict)
    _cached_bytes: int = 0

    def draw(self, rng: np.random.Generator) -> Sample:
        """Choose a data set by its share, then any of its pictures."""
        shares = np.asarray([one.share for one in self.data.sets])
        pictures = self.data.sets[int(rng.choice(len(shares), p=shares / shares.sum()))].pictures
        picture = pictures[int(rng.integers(len(pictures)))]
        return Sample(self._image(picture), picture.boxes, picture.classes, picture.ignored)

    def _image(self, picture: Annotated) -> Image:
        image = self._cache.get(picture.path)
        if isinstance(picture, Decoded):
            return picture.image()
        if image is None:
            image = picture.image()
            if self._cached_bytes + image.nbytes <= CACHE_BYTES:
                self._cache[picture.path] = image
                self._cached_bytes += image.nbytes
        return image


def collate(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Return images (N, 3, S, S) in [0, 1], truths (M, 6) and ignored boxes (K, 5) for `yolo_loss`."""
    images = torch.from_numpy(to_tensor([s.image for s in samples], (0, 0, 0), (1, 1, 1)))
    truths = [np.column_stack([np.full(len(s.boxes), n), s.classes, s.boxes]) for n, s in enumerate(samples)]
    ignored = [np.column_stack([np.full(len(s.ignored), n), s.ignored]) for n, s in enumerate(samples)]
    return images, _rows(truths, 6), _rows(ignored, 5)


def _rows(parts: list[npt.NDArray[np.float64]], columns: int) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).reshape(-1, columns).astype(np.float32))


def choose_anchors(feed: Feed, size: int, strides: Sequence[int], per_head: int, seed: int) -> Anchors:
    """Fit anchors to the boxes that training will show at its final size: k-means on IoU, each head its own scale.

    One clustering of all would follow the many small boxes and leave a close-up's lesion none that is like it.
    Returns (width, height) px for each head. Raises SourceError when the pictures show too few boxes.
    """
    shown = [augmented(np.random.default_rng((seed, n)), feed.draw, size).boxes for n in range(ANCHOR_PICTURES)]
    boxes = np.concatenate(shown).astype(np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    if len(sides) < 2 * per_head * len(strides):
        raise SourceError(f"{ANCHOR_PICTURES} training pictures of {size} px show {len(sides)} boxes of 5 px or more")
    return [[(round(float(w), 1), round(float(h), 1)) for w, h in head] for head in _per_head(sides, strides, per_head)]


def _per_head(sides: npt.NDArray[np.float64], strides: Sequence[int], per_head: int) -> list[npt.NDArray[np.float64]]:
    """Cluster sides (N, 2) px for each head: to one of stride s go boxes of s px and more, to the finest all below.

    Where a head would get next to none, one clustering of all is dealt out by size, as Darknet does.
    """
    fine_to_coarse = sorted(range(len(strides)), key=lambda head: strides[head])
    limits = [0.0, *(float(strides[head]) for head in fine_to_coarse[1:]), np.inf]
    mean = np.sqrt(sides.prod(axis=1))
    parts = [sides[(mean >= low) & (mean < high)] for low, high in pairwise(limits)]
    if min(len(part) for part in parts) >= 2 * per_head:
        fitted = [fit_anchors(part, per_head) for part in parts]
    else:
        fitted = list(np.split(fit_anchors(sides, per_head * len(strides)), len(strides)))
    return [fitted[fine_to_coarse.index(head)] for head in range(len(strides))]
