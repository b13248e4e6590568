"""COCO json: `images`, `annotations` with `bbox` [x, y, width, height] px, `categories`; a crowd is ignored."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from derma_common.errors import SourceError
from derma_training.detector.annotations.annotated import Box, Label
from derma_training.detector.annotations.report import Problem, Report
from derma_training.detector.annotations.tree import Tree

_NAN = float("nan")


def load(file: Path) -> dict[str, Any] | None:
    """Return the document of a COCO json, None when the file is another json. Raises SourceError when it is broken."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(document, dict) or not {"images", "annotations"} <= set(document):
        return None
    lists = [document["images"], document["annotations"], document.get("categories", [])]
    if not all(isinstance(rows, list) and all(isinstance(row, dict) for row in rows) for rows in lists):
        raise SourceError(f"{file} is no COCO file: images, annotations and categories must be lists of objects")
    return document


def categories(documents: Iterable[dict[str, Any]]) -> dict[Any, str]:
    """Return name by category id over all files, in the order of the ids; without a list, the ids that occur."""
    named: dict[Any, str] = {}
    for document in documents:
        rows = document.get("categories") or [{"id": _key(row, "category_id")} for row in document["annotations"]]
        named |= {_key(row, "id"): str(row.get("name", _key(row, "id"))) for row in rows}
    return dict(sorted(named.items(), key=lambda item: (str(type(item[0])), item[0])))


def read(file: Path, document: dict[str, Any], kinds: Mapping[Any, int], tree: Tree, report: Report) -> Iterator[Label]:
    """Yield a label for each image; `kinds` maps a category id to the class's index."""
    where = tree.shown(file)
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    known = {_key(image, "id") for image in document["images"]}
    for row in document["annotations"]:
        if _key(row, "image_id") in known:
            by_image[_key(row, "image_id")].append(row)
        else:
            report.add(Problem.NO_PICTURE, f"{where}: annotation of image {row.get('image_id')!r}")
    for image in document["images"]:
        name = str(image.get("file_name", ""))
        picture = tree.picture(name, file.parent)
        if picture is None:
            report.add(Problem.NO_PICTURE, f"{where}: {name}")
            continue
        rows = by_image[_key(image, "id")]
        spared = [row for row in rows if row.get("iscrowd") or row.get("ignore")]
        counted = [row for row in rows if not (row.get("iscrowd") or row.get("ignore"))]
        yield Label(
            picture,
            f"{where}: {name}",
            [_box(row) for row in counted],
            [kinds.get(_key(row, "category_id"), -1) for row in counted],
            [_box(row) for row in spared],
            stated=_stated(image),
            source=str(image.get("source") or tree.source(file)),
            group=str(image.get("patient_id") or image.get("lesion_id") or ""),
            split=tree.split(file) or tree.split(picture),
        )


def _key(row: dict[str, Any], name: str) -> int | str:
    """Return an id; what cannot be one is none of the others."""
    value = row.get(name)
    return value if isinstance(value, int | str) else ""


def _box(row: dict[str, Any]) -> Box:
    try:
        x, y, width, height = (float(v) for v in row["bbox"])
    except (KeyError, TypeError, ValueError):
        return (_NAN, _NAN, _NAN, _NAN)
    return x, y, x + width, y + height


def _stated(image: dict[str, Any]) -> tuple[int, int] | None:
    try:
        width, height = int(image["width"]), int(image["height"])
    except (KeyError, TypeError, ValueError):
        return None
    return (width, height) if width > 0 and height > 0 else None
