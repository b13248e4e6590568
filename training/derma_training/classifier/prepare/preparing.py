"""The whole preparation: read the sources, clean and copy the pictures, link what belongs together, deal the folds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from derma_common.errors import ConfigError
from derma_training.classifier.charts import bars, save
from derma_training.classifier.licences import is_commercial, licence_of_model, normalised
from derma_training.classifier.manifest import TEST, Row, classes_of, write_manifest
from derma_training.classifier.prepare.cleaning import TEXT_STRIP, Prepared, clean, targets
from derma_training.classifier.prepare.duplicates import near_duplicates
from derma_training.classifier.prepare.folds import connected, grouped_folds
from derma_training.classifier.prepare.found import Found, Reading
from derma_training.classifier.prepare.layouts import LAYOUTS, Layout
from derma_training.classifier.prepare.linking import group_names, known_links
from derma_training.progress import Progress

MANIFEST_FILE = "manifest.csv"
PICTURE_FILE = "classes.png"
IMAGES_FOLDER = "images"


@dataclass(frozen=True)
class Source:
    """A data set on disk: the layout's name and where it lies."""

    layout: str
    place: Path


@dataclass(frozen=True)
class Preparation:
    """What the user asked for. `test_share` is of sources that state no split; `test_sources` are held out whole."""

    sources: tuple[Source, ...]
    out: Path
    reading: Reading = field(default_factory=Reading)
    classes: tuple[str, ...] = ()
    licence: str = ""
    links: tuple[Path, ...] = ()
    border: str = "none"
    long_side: int = 600
    folds: int = 10
    test_share: float = 0.15
    test_sources: tuple[str, ...] = ()
    commercial: bool = False
    threads: int = 2
    seed: int = 0


def prepare(wish: Preparation) -> dict[str, Any]:
    """Write OUT/manifest.csv, OUT/images and OUT/classes.png; return a summary. Raises ConfigError."""
    found = [(one, LAYOUTS[source.layout]) for source in wish.sources for one in _read(source, wish)]
    _check([one for one, _ in found], wish)
    admitted = [pair for pair in found if is_commercial(pair[0].licence) or not wish.commercial]
    if not admitted:
        raise ConfigError("no picture is left" + (": none is CC0 or CC BY" if wish.commercial else ""))
    rows = [one for one, _ in admitted]
    wish.out.mkdir(parents=True, exist_ok=True)
    cleaned = _process(admitted, wish)
    duplicates = near_duplicates(np.stack([one.fingerprint for one in cleaned]))
    component = connected(len(rows), [*duplicates, *known_links(rows, wish.links)])
    kept = _without_copies_of_tested(rows, component)
    names = group_names(rows, component)
    folds = _deal([rows[i] for i in kept], [names[i] for i in kept], wish)
    manifest = [_row(rows[i], cleaned[i], names[i], fold) for i, fold in zip(kept, folds, strict=True)]
    manifest.sort(key=lambda row: row.file)
    write_manifest(manifest, wish.out / MANIFEST_FILE)
    save(bars(class_counts(manifest), f"{len(manifest)} pictures"), wish.out / PICTURE_FILE)
    left_out = {
        "licence neither CC0 nor CC BY": len(found) - len(admitted),
        "near a picture of a stated test part": len(rows) - len(kept),
    }
    return summary_of(manifest, wish.out) | {
        "near_duplicate_pairs": len(duplicates),
        "left_out": {reason: n for reason, n in left_out.items() if n},
    }


def summary_of(rows: Sequence[Row], out: Path) -> dict[str, Any]:
    """Return what a manifest in `out` holds, as plain values."""
    counted = {"folds": "fold", "sources": "source", "licences": "licence"}
    return {
        "manifest": str(out / MANIFEST_FILE),
        "picture": str(out / PICTURE_FILE),
        "pictures": len(rows),
        "groups": len({row.group for row in rows}),
        "classes": class_counts(rows),
        **{name: dict(sorted(Counter(getattr(row, of) for row in rows).items())) for name, of in counted.items()},
        "licence_of_a_model": licence_of_model(row.licence for row in rows),
    }


def _read(source: Source, wish: Preparation) -> list[Found]:
    """Read one source; give its pictures a source name, a licence and the stated part."""
    layout = LAYOUTS[source.layout]
    name = source.place.name if source.place.is_dir() else source.place.parent.name or source.layout
    rows = []
    for one in layout.read(source.place, wish.reading):
        origin = one.source or name
        licence = normalised(one.licence or wish.licence or layout.licence)
        stated = TEST if origin in wish.test_sources else one.stated
        rows.append(replace(one, source=origin, licence=licence, stated=stated))
    return rows


def _check(found: Sequence[Found], wish: Preparation) -> None:
    """Raise ConfigError when a source to hold out does not exist, or a label is none of the classes allowed."""
    absent = sorted(set(wish.test_sources) - {one.source for one in found})
    if absent:
        raise ConfigError(f"--test names no source: {', '.join(absent)}")
    strange = [one for one in found if wish.classes and one.label not in wish.classes]
    if strange:
        raise ConfigError(
            f"{len(strange)} pictures have labels that are none of {', '.join(wish.classes)}: first {strange[0].name} "
            f"of {strange[0].source}, {strange[0].label!r}; translate them with --map WORD=CLASS, or WORD= to leave out"
        )


def _process(found: Sequence[tuple[Found, Layout]], wish: Preparation) -> list[Prepared]:
    """Clean and copy all pictures, in threads: decoding and resizing leave the interpreter alone."""
    places = targets([one for one, _ in found], wish.out / IMAGES_FOLDER)
    results: list[Prepared] = []
    with ThreadPoolExecutor(wish.threads) as pool, Progress("pictures", len(found)) as progress:
        jobs = [
            pool.submit(clean, one, TEXT_STRIP if layout.text_strip else wish.border, wish.long_side, target)
            for (one, layout), target in zip(found, places, strict=True)
        ]
        try:
            for job in jobs:
                results.append(job.result())
                progress.step()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def _without_copies_of_tested(rows: Sequence[Found], component: Sequence[int]) -> list[int]:
    """Return what is kept: not what a source does not call test but is linked to what is.

    Raises ConfigError when one source states that a lesion or patient is in both parts.
    """
    tested = {component[i] for i, one in enumerate(rows) if one.stated == TEST}
    stated: dict[tuple[str, str], str] = {}
    for one in rows:
        if one.group and one.stated and stated.setdefault((one.source, one.group), one.stated) != one.stated:
            raise ConfigError(
                f"{one.source} states that {one.group} is both in train and in test: a lesion or patient in two parts "
                "makes every figure flatter; correct its column, or remove it to have the folds dealt"
            )
    return [i for i, one in enumerate(rows) if one.stated == TEST or component[i] not in tested]


def _deal(rows: Sequence[Found], groups: Sequence[str], wish: Preparation) -> list[str]:
    """Return the fold of each row: a stated test part stays, the rest is dealt by group.

    Of a source that states a split, nothing more goes to test.
    """
    stating = {one.source for one in rows if one.stated}
    numbered = {str(fold): (1.0 - wish.test_share) / wish.folds for fold in range(wish.folds)}
    bound = {group for one, group in zip(rows, groups, strict=True) if one.source in stating}
    folds = [TEST] * len(rows)
    for shares, is_bound in (({TEST: wish.test_share, **numbered}, False), (numbered, True)):
        chosen = [i for i, one in enumerate(rows) if one.stated != TEST and (groups[i] in bound) is is_bound]
        if chosen:
            dealt = grouped_folds([rows[i].label for i in chosen], [groups[i] for i in chosen], shares, wish.seed)
            for i, fold in zip(chosen, dealt, strict=True):
                folds[i] = fold
    return folds


def _row(one: Found, done: Prepared, group: str, fold: str) -> Row:
    about = (one.age, one.sex, one.site, one.fitzpatrick)
    return Row(done.file, one.label, group, fold, one.licence, one.source, done.box, *about)


def class_counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Return class -> {"train": pictures in numbered folds, "test": pictures held out}."""
    counts = {name: {"train": 0, "test": 0} for name in classes_of(row.label for row in rows)}
    for row in rows:
        counts[row.label]["test" if row.fold == TEST else "train"] += 1
    return counts
