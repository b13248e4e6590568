"""Draw wide-field skin scenes with exact boxes, in YOLO's layout.

OUT/images/*.jpg, OUT/labels/*.txt (`class x y width height`, shares of the picture; an empty file: no lesion),
OUT/ignored/*.txt (the same lines: regions where a detection is neither right nor wrong) and OUT/classes.txt. The same
seed, sizes and folders draw the same scenes. With --crops, real lesions are cut out and blended in: those scenes then
carry the licence of the crops.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np

from derma_common.boxes import Boxes
from derma_common.errors import ConfigError, ResourceError, SourceError
from derma_common.preprocess import Image
from derma_training.detector.augment import Sample
from derma_training.detector.cutouts import ENDINGS, read_cutouts
from derma_training.detector.scenes import LESION_FREE, draw_scene
from derma_training.progress import Progress

JPEG_QUALITY = 95
FOLDERS = ("images", "labels", "ignored")


def main(arguments: list[str]) -> None:
    """Draw scenes."""
    args = _parse(arguments)
    cutouts = read_cutouts(args.crops) if args.crops else []
    skins = _pictures(args.skins) if args.skins else []
    if args.crops:
        print(f"{len(cutouts)} lesions cut out of {args.crops}", file=sys.stderr)
    free = 1.0 if args.no_lesions else LESION_FREE
    boxes = ignored = 0
    try:
        for folder in FOLDERS:
            (args.out / folder).mkdir(parents=True, exist_ok=True)
        (args.out / "classes.txt").write_text("lesion\n", encoding="utf-8")
        with Progress("scenes", args.n) as progress:
            for n in range(args.n):
                rng = np.random.default_rng((args.seed, n))
                scene = draw_scene(rng, args.width, args.height, cutouts, skins, free)
                _write(scene, args.out, f"scene-{args.seed:04d}-{n:05d}")
                boxes, ignored = boxes + len(scene.boxes), ignored + len(scene.ignored)
                progress.step()
    except OSError as error:
        raise ResourceError(f"{args.out} cannot be written: {error.strerror}") from error
    print(json.dumps({"scenes": args.n, "boxes": boxes, "ignored": ignored, "cutouts": len(cutouts)}))


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="derma data draw", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--n", type=int, required=True, help="number of scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--crops", type=Path, help="folder of pictures of one real lesion each, to blend in")
    parser.add_argument("--skins", type=Path, help="folder of pictures of real skin without lesions, to draw on")
    parser.add_argument("--no-lesions", action="store_true", help="skin alone, to look for false positives on")
    args = parser.parse_args(arguments)
    if args.n < 1 or args.seed < 0 or min(args.width, args.height) < 128:
        raise ConfigError("draw wants --n of at least 1, --seed of at least 0, and sides of at least 128 px")
    return args


def _pictures(folder: Path) -> list[Image]:
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in ENDINGS)
    read = [cv2.imread(str(file)) for file in files]
    pictures = [np.asarray(image, np.uint8) for image in read if image is not None]
    if not pictures:
        raise SourceError(f"{folder} holds no picture that OpenCV can read")
    return pictures


def _write(scene: Sample, out: Path, name: str) -> None:
    """Write one scene. Raises OSError."""
    height, width = scene.image.shape[:2]
    _, packed = cv2.imencode(".jpg", scene.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    (out / "images" / f"{name}.jpg").write_bytes(packed.tobytes())
    for folder, boxes in (("labels", scene.boxes), ("ignored", scene.ignored)):
        (out / folder / f"{name}.txt").write_text(_lines(boxes, width, height), encoding="utf-8")


def _lines(boxes: Boxes, width: int, height: int) -> str:
    return "".join(
        f"0 {(x1 + x2) / 2 / width:.6f} {(y1 + y2) / 2 / height:.6f} {(x2 - x1) / width:.6f} {(y2 - y1) / height:.6f}\n"
        for x1, y1, x2, y2 in boxes.astype(float)
    )
