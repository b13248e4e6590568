"""Make kinds of unknown pictures that look like skin, from lesions and the skin beside them, to ask a classifier about.

    python bench/unknowns.py LABELS.csv [--where COLUMN=VALUE …] --name phone [--kind skin …] --out DIR

LABELS.csv names pictures with lesion boxes, as for `derma evaluate classifier`: to measure, ones that no training saw.
DIR gets pictures and a table `labels.csv` of `file,label,source,group,licence`: each label is UNK, each source "NAME
KIND", group (a lesion or patient) and licence those of the picture it was made from. The kinds are

    skin         a square beside the lesion's box: what a detector's false alarm on healthy skin shows. It may hold a
                 mole without a box, a hair or the dark rim of a dermoscope
    blurred      the pipeline's crop of the lesion, blurred until a blot of its colour is left
    overexposed  the crop so bright that nine pixels in ten are white
    dark         the crop at a tenth of its light, with the noise of a camera at its limit

The last three show lesions that nobody can judge: an answer other than UNK is a guess.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from derma_common.errors import SourceError, UserError
from derma_common.preprocess import Image
from derma_common.recordings import read_picture
from derma_training.classifier.commands.evaluate import condition
from derma_training.classifier.evaluation.classes import UNKNOWN
from derma_training.classifier.evaluation.groups import independent_groups
from derma_training.classifier.evaluation.predict import lesion_crop
from derma_training.classifier.evaluation.table import Labelled, read_table

MARGIN = 0.25  # around a lesion, as the pipeline cuts
LEAST_SHARE = 0.2  # of the shorter side: a smaller patch of skin is left out
BLUR_SHARE = 1 / 8  # standard deviation of the blur, of the crop's side
NOISE = 4.0  # standard deviation, of 255

Maker = Callable[[Labelled, Image, np.random.Generator], Image | None]


def main() -> int:
    """Make the pictures and their table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("labels", type=Path)
    parser.add_argument("--where", action="append", default=[], type=condition, metavar="COLUMN=VALUE")
    parser.add_argument("--name", required=True, help="what the pictures are: dermoscopy, phone, …")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kind", action="append", choices=tuple(KINDS), help="may be repeated (all)")
    parser.add_argument("--most", type=int, default=200, help="pictures of each kind (200)")
    options = parser.parse_args()
    try:
        rows = [row for row in read_table(options.labels, where=options.where) if row.box and row.label != UNKNOWN]
        made = make(rows, options.name, options.kind or [*KINDS], options.out, options.most)
    except UserError as error:
        print(f"unknowns: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join(f"{n:6d}  {kind}" for kind, n in made.items()))
    return 0


def make(rows: list[Labelled], name: str, kinds: list[str], out: Path, most: int) -> dict[str, int]:
    """Write up to `most` pictures of each kind, and the table; return how many. Raises SourceError: no lesion boxes."""
    if not rows:
        raise SourceError("no row of the table has a lesion's box")
    (out / "images").mkdir(parents=True, exist_ok=True)
    _, groups = independent_groups(rows, None)
    chosen = np.random.default_rng(0).permutation(len(rows))
    made: dict[str, int] = {}
    with (out / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(("file", "label", "source", "group", "licence"))
        for kind in kinds:
            source = f"{name} {kind}"
            made[source] = 0
            for i in chosen:
                picture = KINDS[kind](rows[i], read_picture(rows[i].file), np.random.default_rng(int(i)))
                if picture is None:
                    continue
                file = f"images/{kind}-{i:05d}.png"
                cv2.imwrite(str(out / file), picture)
                table.writerow((file, UNKNOWN, source, groups[i], rows[i].columns.get("licence", "")))
                made[source] += 1
                if made[source] == most:
                    break
    return made


def skin(row: Labelled, image: Image, rng: np.random.Generator) -> Image | None:
    """Return the largest square between the lesion's box and an edge of the picture, None when all are small."""
    assert row.box is not None
    height, width = image.shape[:2]
    left, top, right, bottom = (round(v * side) for v, side in zip(row.box, (width, height) * 2, strict=True))
    strips = [(0, 0, left, height), (right, 0, width, height), (0, 0, width, top), (0, bottom, width, height)]
    x1, y1, x2, y2 = max(strips, key=lambda strip: min(strip[2] - strip[0], strip[3] - strip[1]))
    side = min(x2 - x1, y2 - y1)
    if side < LEAST_SHARE * min(width, height):
        return None
    x, y = rng.integers(x1, x2 - side + 1), rng.integers(y1, y2 - side + 1)
    return np.ascontiguousarray(image[y : y + side, x : x + side])


def blurred(row: Labelled, image: Image, rng: np.random.Generator) -> Image:
    """Return the lesion's crop, blurred."""
    crop = lesion_crop(row, image, MARGIN)
    return np.asarray(cv2.GaussianBlur(crop, (0, 0), BLUR_SHARE * crop.shape[0]), dtype=np.uint8)


def overexposed(row: Labelled, image: Image, rng: np.random.Generator) -> Image:
    """Return the lesion's crop, nine pixels in ten of it white."""
    crop = lesion_crop(row, image, MARGIN)
    return np.asarray(np.clip(crop * (255.0 / max(1.0, np.percentile(crop, 10))), 0, 255), dtype=np.uint8)


def dark(row: Labelled, image: Image, rng: np.random.Generator) -> Image:
    """Return the lesion's crop at a tenth of its light."""
    crop = lesion_crop(row, image, MARGIN)
    return np.asarray(np.clip(0.1 * crop + rng.normal(0.0, NOISE, crop.shape), 0, 255), dtype=np.uint8)


KINDS: dict[str, Maker] = {"skin": skin, "blurred": blurred, "overexposed": overexposed, "dark": dark}


if __name__ == "__main__":
    sys.exit(main())
