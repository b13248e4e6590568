"""YOLO text labels: a file for each picture, a line `class x y width height` for each box, centre and shares.

A line with more numbers is a polygon (`class x1 y1 x2 y2 …`): its bounds count. An empty file, and none at all, mean
that the picture shows no lesion, as in Darknet. Files of the same form below ignored/ instead of labels/ hold regions
where a detection is neither right nor wrong (`derma data draw` writes them).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from derma_training.detector.annotations.annotated import Box, Label
from derma_training.detector.annotations.report import Problem, Report
from derma_training.detector.annotations.tree import PICTURE_FOLDERS, Tree

_NO_LABELS = ("classes.txt", "readme.txt", "train.txt", "val.txt", "test.txt", "notes.txt")  # texts of other use


def has_labels(tree: Tree) -> bool:
    """Tell whether any text file of the folder is the label file of a picture, or lies where they do."""
    texts = _texts(tree)
    return any(_among_labels(file, tree) for file in texts) or any(
        label_file(picture, tree, texts) for picture in tree.pictures
    )


def read(tree: Tree, report: Report) -> Iterator[Label]:
    """Yield a label for each picture of the folder."""
    texts = _texts(tree)
    used: set[Path] = set()
    for picture in tree.pictures:
        file = label_file(picture, tree, texts)
        source, split = tree.source(picture), tree.split(picture)
        if file is None:
            report.add(Problem.UNLABELLED, tree.shown(picture))
            yield Label(picture, tree.shown(picture), source=source, split=split)
            continue
        used.add(file)
        where = tree.shown(file)
        regions = _ignored_file(file)
        rows = _rows(file, where, report)
        spared = _rows(regions, tree.shown(regions), report) if regions in texts else []
        if rows is None or spared is None:
            continue  # a picture whose labels cannot be read is no picture without lesions
        boxes, kinds, ignored = [box for _, box in rows], [kind for kind, _ in rows], [box for _, box in spared]
        yield Label(picture, where, boxes, kinds, ignored, True, source=source, split=split)
    for file in texts:
        if file not in used and _among_labels(file, tree):
            report.add(Problem.NO_PICTURE, tree.shown(file))


def class_names(tree: Tree) -> tuple[str, ...] | None:
    """Return the names of classes.txt, *.names or data.yaml, None where there are none."""
    for file in tree.files:
        if file.name.lower() == "classes.txt" or file.suffix.lower() == ".names":
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            return tuple(line.strip() for line in lines if line.strip()) or None
    for file in tree.ending(".yaml", ".yml"):
        if names := _yaml_names(file.read_text(encoding="utf-8", errors="replace")):
            return names
    return None


def label_file(picture: Path, tree: Tree, texts: Collection[Path]) -> Path | None:
    """Return the label file of a picture: at the same place below labels/ instead of images/, or beside it."""
    text = picture.with_suffix(".txt")
    candidates = (_moved(text, PICTURE_FOLDERS, "labels"), text, tree.root / "labels" / text.name)
    return next((path for path in candidates if path in texts), None)


def _ignored_file(labels: Path) -> Path:
    return _moved(labels, ("labels",), "ignored") or labels.parent / "ignored" / labels.name


def _moved(path: Path, folders: Sequence[str], to: str) -> Path | None:
    """Return a path with the last of its folders that has one of these names exchanged."""
    for i in range(len(path.parts) - 2, -1, -1):
        if path.parts[i].lower() in folders:
            return Path(*path.parts[:i], to, *path.parts[i + 1 :])
    return None


def _among_labels(file: Path, tree: Tree) -> bool:
    return "labels" in (part.lower() for part in file.relative_to(tree.root).parts[:-1])


def _texts(tree: Tree) -> dict[Path, None]:
    return dict.fromkeys(path for path in tree.ending(".txt") if path.name.lower() not in _NO_LABELS)


def _rows(file: Path, where: str, report: Report) -> list[tuple[int, Box]] | None:
    """Return class and box of each good line, None when the file cannot be read."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        report.add(Problem.LABEL_FILE, where)
        return None
    rows = []
    for number, line in enumerate(lines, 1):
        row = _row(line.split())
        if row is not None:
            rows.append(row)
        elif line.strip():
            report.add(Problem.LINE, f"{where}, line {number}")
    return rows


def _row(words: list[str]) -> tuple[int, Box] | None:
    try:
        kind, *numbers = (float(word) for word in words)
    except ValueError:  # a word that is no number, or no word at all
        return None
    known = int(kind) if kind.is_integer() else -1
    if len(numbers) == 4:
        x, y, w, h = numbers
        return known, (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        return known, (min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2]))
    return None


def _yaml_names(text: str) -> tuple[str, ...] | None:
    """Read `names` of a data.yaml: `[a, b]`, a list of `- a`, or a map of `0: a`; no other YAML is understood."""
    found = re.search(r"^names:[ \t]*(\[.*?\]|(?:\n[ \t]*(?:-|\d+:)[^\n]*)+)", text, re.MULTILINE | re.DOTALL)
    if not found:
        return None
    body = found.group(1)
    items = (
        body.strip("[]").split(",") if body.startswith("[") else re.findall(r"^\s*(?:-|\d+:)(.*)$", body, re.MULTILINE)
    )
    return tuple(item.strip().strip("'\"") for item in items if item.strip()) or None
