"""Pascal VOC: an XML file for each picture; pixel indices from 1, both ends inside; `difficult` is ignored.

Everingham et al. 2010, §4.2 of the development kit: difficult objects are neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from derma_training.detector.annotations.annotated import Box, Label
from derma_training.detector.annotations.report import Problem, Report
from derma_training.detector.annotations.tree import Tree

_NAN = float("nan")


def parse(tree: Tree, report: Report) -> dict[Path, Element | None]:
    """Return the root of each VOC file of a folder, None for an XML file that is broken; others are left out."""
    roots: dict[Path, Element | None] = {}
    for file in tree.ending(".xml"):
        try:
            root = ElementTree.parse(file).getroot()
        except (OSError, ElementTree.ParseError):
            report.add(Problem.LABEL_FILE, tree.shown(file))
            roots[file] = None
            continue
        if root.tag == "annotation":
            roots[file] = root
    return roots


def class_names(roots: Iterable[Element | None]) -> tuple[str, ...]:
    """Return the names of all objects, sorted."""
    objects = (item for root in roots if root is not None for item in root.iter("object"))
    return tuple(sorted({_text(item, "name") or "lesion" for item in objects}))


def read(roots: Mapping[Path, Element | None], names: tuple[str, ...], tree: Tree, report: Report) -> Iterator[Label]:
    """Yield a label for each XML file that has its picture, and for each picture without one."""
    labelled = {tree.picture(file.stem, file.parent) for file, root in roots.items() if root is None}
    for file, root in roots.items():
        if root is None:
            continue
        where = tree.shown(file)
        picture = tree.picture(_text(root, "filename") or file.stem, file.parent) or tree.picture(
            file.stem, file.parent
        )
        if picture is None:
            report.add(Problem.NO_PICTURE, where)
            continue
        labelled.add(picture)
        objects = list(root.iter("object"))
        hard = [item for item in objects if _text(item, "difficult") == "1"]
        counted = [item for item in objects if item not in hard]
        yield Label(
            picture,
            where,
            [_box(item) for item in counted],
            [names.index(_text(item, "name") or "lesion") for item in counted],
            [_box(item) for item in hard],
            stated=_stated(root),
            source=tree.source(picture),
            split=tree.split(picture),
        )
    for picture in tree.pictures:
        if picture not in labelled:
            report.add(Problem.UNLABELLED, tree.shown(picture))
            yield Label(picture, tree.shown(picture), source=tree.source(picture), split=tree.split(picture))


def _text(item: Element, tag: str) -> str:
    return (item.findtext(tag) or "").strip()


def _box(item: Element) -> Box:
    try:
        x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{tag}") or "") for tag in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        return (_NAN, _NAN, _NAN, _NAN)
    return x1 - 1, y1 - 1, x2, y2


def _stated(root: Element) -> tuple[int, int] | None:
    try:
        width, height = int(root.findtext("size/width") or ""), int(root.findtext("size/height") or "")
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None
