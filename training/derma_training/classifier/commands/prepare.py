"""`prepare`: from data sets as they are published to one checked manifest, with folds that cannot leak.

Writes OUT/manifest.csv (file,label,group,fold,licence,…), OUT/images (cleaned, resized) and OUT/classes.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from derma_common.errors import ConfigError
from derma_training.classifier.manifest import CLASSES
from derma_training.classifier.prepare.cleaning import BORDERS
from derma_training.classifier.prepare.found import Reading
from derma_training.classifier.prepare.layouts import LAYOUTS
from derma_training.classifier.prepare.preparing import Preparation, Source, prepare


def main(arguments: list[str]) -> None:
    """Prepare data sets."""
    options = _parser().parse_args(arguments)
    wish = Preparation(
        sources=tuple(options.source),
        out=options.out,
        reading=Reading(
            options.label_column, options.group_column, dict(options.map), options.skip_missing, options.seed
        ),
        classes=options.classes,
        licence=options.licence,
        links=tuple(options.links),
        border=options.border,
        long_side=options.long_side,
        folds=options.folds,
        test_share=options.test_share,
        test_sources=tuple(options.test),
        commercial=options.commercial,
        threads=options.threads,
        seed=options.seed,
    )
    _check(wish)
    summary = prepare(wish)
    if options.json:
        print(json.dumps(summary))
        return
    print(f"{summary['manifest']}: {summary['pictures']} pictures in {summary['groups']} groups")
    for name, n in summary["classes"].items():
        print(f"  {name:<12} {n['train']:>7} to train, {n['test']:>6} held out")
    for reason, n in summary["left_out"].items():
        print(f"left out: {n} pictures ({reason})")
    print(f"near-duplicate pairs linked: {summary['near_duplicate_pairs']}")
    print(f"licence of a model trained on this: {summary['licence_of_a_model']}")


def _check(wish: Preparation) -> None:
    if wish.folds < 2:
        raise ConfigError("--folds must be 2 or more: one is held back to calibrate")
    if not 0.0 <= wish.test_share < 1.0:
        raise ConfigError("--test-share is a share from 0 to 1")
    for source in wish.sources:
        if source.layout != "drawn" and not source.place.exists():
            raise ConfigError(f"there is no {source.place}")
        if source.place.resolve() == wish.out.resolve():
            raise ConfigError(f"--out {wish.out} is a source: choose another folder")


def _source(words: str) -> Source:
    layout, _, place = words.partition("=")
    if layout not in LAYOUTS or not place:
        raise argparse.ArgumentTypeError(f"{words!r} is not LAYOUT=FOLDER; layouts: {', '.join(LAYOUTS)}")
    return Source(layout, Path(place))


def _classes(words: str) -> tuple[str, ...]:
    return CLASSES if words == "isic2019" else tuple(name.strip() for name in words.split(","))


def _map(words: str) -> list[tuple[str, str]]:
    pairs = [pair.partition("=") for pair in words.split(",")]
    if any(not sign for _, sign, _ in pairs):
        raise argparse.ArgumentTypeError(f"{words!r} is not WORD=CLASS,WORD=CLASS")
    return [(word.strip(), name.strip()) for word, _, name in pairs]


def _parser() -> argparse.ArgumentParser:
    layouts = "\n".join(f"  {name:<14} {layout.about}" for name, layout in LAYOUTS.items())
    parser = argparse.ArgumentParser(
        prog="derma data prepare",
        description=__doc__,
        epilog=f"layouts:\n{layouts}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--source", type=_source, action="append", required=True, metavar="LAYOUT=FOLDER", help="may be repeated")
    add("--out", type=Path, required=True, help="folder to write to")
    add("--label-column", default="", help="column of the labels, if not the layout's own")
    add("--group-column", default="", help="column of the lesion or patient, if not group, patient_id or lesion_id")
    add("--map", type=_map, default=[], metavar="WORD=CLASS,…", help="rename labels; WORD= leaves them out")
    add("--classes", type=_classes, default=(), help="refuse other labels: A,B,C, or isic2019 for its nine")
    add("--licence", default="", help="of pictures whose table and layout state none, as in CC-BY-4.0")
    add("--commercial", action="store_true", help="take only CC0 and CC BY pictures")
    add("--links", type=Path, action="append", default=[], help="CSV of duplicates, or of pictures and lesions")
    add("--border", choices=tuple(BORDERS), default="none", help="trim: uniform border; circle: dermatoscope's ring")
    add("--long-side", type=int, default=600, help="px; larger pictures are shrunk, aspect kept (default 600)")
    add("--folds", type=int, default=10, help="numbered folds (default 10)")
    add("--test-share", type=float, default=0.15, help="held out of sources that state no split (default 0.15)")
    add("--test", action="append", default=[], metavar="SOURCE", help="hold this source out as a whole")
    add("--skip-missing", action="store_true", help="leave out rows whose picture is missing")
    add("--threads", type=int, default=2)
    add("--seed", type=int, default=0)
    add("--json", action="store_true", help="print the summary as one JSON document")
    return parser
