"""Find out how a data set is written, read it, check it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from derma_common.errors import SourceError
from derma_training.detector.annotations import coco, table, voc, yolo
from derma_training.detector.annotations.annotated import Annotated, Label
from derma_training.detector.annotations.checking import check, size_of
from derma_training.detector.annotations.report import Problem, Report
from derma_training.detector.annotations.tree import Tree

LESION = ("lesion",)
LABEL_FOLDERS = ("annotations", "annotation", "labels")  # their pictures lie beside them


@dataclass(frozen=True)
class Annotations:
    """What a folder or file of labels holds."""

    pictures: tuple[Annotated, ...]
    classes: tuple[str, ...]
    report: Report
    format: str  # in words: which kind of labels was read

    @property
    def boxes(self) -> int:
        """How many boxes there are in all pictures."""
        return sum(len(picture.boxes) for picture in self.pictures)


def read_annotations(place: Path, split: str | None = None) -> Annotations:
    """Read the labelled pictures of a folder, a COCO json or a table; with `split` only those of that split.

    Formats, the first that is met: COCO json, table of boxes (CSV), Pascal VOC, YOLO text; a folder of pictures
    without any labels is taken to show no lesion. Every picture is decoded once, so that a damaged file is found here
    and not after hours. Raises SourceError when there is nothing to read, or nothing of that split.
    """
    tree, files = _open(place)
    report = Report()
    labels, classes, known, written = _read(tree, files, report)
    if split is not None:
        splits = sorted({label.split for label in labels} - {""})
        labels = [label for label in labels if label.split == split]
        if not labels:
            raise SourceError(f"{place} has no split {split!r}; it has {', '.join(splits) or 'none'}")
    pictures = _checked(labels, len(classes) if known else None, report)
    if not pictures:
        why = "; ".join(report.lines()) or "no picture was found"
        raise SourceError(f"{place} holds no labelled picture that can be read: {why}")
    if not known:
        highest = max((int(p.classes.max()) for p in pictures if len(p.classes)), default=0)
        classes = LESION if highest == 0 else tuple(str(n) for n in range(highest + 1))
    return Annotations(tuple(pictures), classes, report, written)


def _open(place: Path) -> tuple[Tree, list[Path] | None]:
    """Return the files to look into, and the label files if `place` names one."""
    if place.is_dir():
        return Tree(place), None
    if not place.is_file():
        raise SourceError(f"there is no file or folder {place}")
    suffix = place.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return Tree(place.parent), None
    if suffix not in (".json", ".csv"):
        raise SourceError(f"{place} holds no labels: give a folder, a COCO json or a table (CSV)")
    root = place.parent.parent if place.parent.name.lower() in LABEL_FOLDERS else place.parent
    return Tree(root), [place]


def _read(tree: Tree, files: list[Path] | None, report: Report) -> tuple[list[Label], tuple[str, ...], bool, str]:
    """Return the labels, the classes' names, whether those are all that there may be, and the format in words."""
    jsons = [file for file in files or tree.ending(".json") if file.suffix.lower() == ".json"]
    documents = {file: document for file in jsons if (document := coco.load(file)) is not None}
    if documents:
        named = coco.categories(documents.values())
        kinds = {identity: index for index, identity in enumerate(named)}
        labels = [label for f, document in documents.items() for label in coco.read(f, document, kinds, tree, report)]
        return labels, tuple(named.values()) or LESION, True, f"COCO json ({_names(documents, tree)})"
    tables = [t for file in files or tree.ending(".csv") if (t := table.load(file, report)) is not None]
    if tables:
        names = table.class_names(tables)
        labels = [label for t in tables for label in table.read(t, names, tree, report)]
        units = " and ".join(sorted({"shares" if t.normalised else "px" for t in tables}))
        return labels, names, True, f"tables ({_names([t.file for t in tables], tree)}), boxes in {units}"
    if files:
        raise SourceError(f"{files[0]} holds neither COCO annotations nor a table with a picture and boxes in each row")
    roots = voc.parse(tree, report)
    if roots:
        names = voc.class_names(roots.values()) or LESION
        return list(voc.read(roots, names, tree, report)), names, True, f"Pascal VOC ({len(roots)} files)"
    found = yolo.class_names(tree)
    labels = list(yolo.read(tree, report))
    written = "YOLO text" if yolo.has_labels(tree) else "pictures without labels, taken to show no lesion"
    return labels, found or LESION, found is not None, written


def _names(files: Iterable[Path], tree: Tree) -> str:
    return ", ".join(tree.shown(file) for file in files)


def _checked(labels: Sequence[Label], classes: int | None, report: Report) -> list[Annotated]:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # decoding leaves the interpreter to others
        sizes = list(pool.map(size_of, labels))
    pictures = []
    for label, size in zip(labels, sizes, strict=True):
        if isinstance(size, SourceError):
            report.add(Problem.PICTURE, str(size))
        elif (picture := check(label, size, classes, report)) is not None:
            pictures.append(picture)
    return pictures
