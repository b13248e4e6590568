"""Trees as people have them: a table of nodes, a table of paths, or a JSON document of nodes and views."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from derma_common.errors import ConfigError
from derma_common.taxonomy.tree import Node, Tree

PATH_ROOT = "all"  # a table of paths does not name the root
PATH_SEPARATOR = ":"
ALIAS_SEPARATOR = ";"


def read_tree(path: Path, levels: Sequence[str] = (), count: str = "") -> Tree:
    """Read a tree from a file. Raises ConfigError with the file and what is wrong in it.

    `*.json`: an object whose `nodes` is a list of objects with `id`, and optionally `parent`, `images`, `aliases`.
    `*.csv` with the columns `id` and `parent`, and optionally `images` and `aliases` (separated by ";").
    `*.csv` of paths, if `levels` names its columns from general to special, such as three_partition_label,
    nine_partition_label, label. A row stands for the node at the end of its path, called by the path joined with
    ":"; `count` names the column with the pictures of a row. Without it each row is one picture, as in a table of
    labelled pictures.
    """
    if path.suffix.lower() == ".json":
        return tree_from(read_document(path), path)
    header, rows = _table(path)
    if levels:
        nodes = _nodes_of_paths(path, header, rows, levels, count)
    elif {"id", "parent"} <= set(header):
        nodes = [_node(row, where) for where, row in rows]
    else:
        raise ConfigError(
            f"{path} has no columns id and parent; if its rows are paths, name their columns from general to special "
            f"as levels (it has {', '.join(header)})"
        )
    return _tree(nodes, path)


def read_document(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises ConfigError, also for a name that occurs twice in one object."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is no JSON document: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} must hold one JSON object")
    return document


def tree_from(document: Mapping[str, Any], path: Path) -> Tree:
    """Return the tree of a document's `nodes`; `path` is named in errors. Raises ConfigError."""
    nodes = document.get("nodes")
    if not isinstance(nodes, list) or not all(isinstance(node, dict) for node in nodes):
        raise ConfigError(f"{path} needs nodes, a list of objects with id and parent")
    return _tree([_node(node, f"{path} node {number}") for number, node in enumerate(nodes, start=1)], path)


def _tree(nodes: Sequence[Node], path: Path) -> Tree:
    try:
        return Tree(nodes)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{min(twice)!r} occurs twice in one object")
    return dict(pairs)


def _table(path: Path) -> tuple[list[str], list[tuple[str, dict[str, str]]]]:
    """Return a table's header, and its rows, each with the words that say where it stands."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            rows = [(f"{path} line {lines.line_num}", row) for row in lines if row]
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no table: {error}") from error
    for where, row in rows:
        if len(row) != len(header):
            raise ConfigError(f"{where} has {len(row)} fields, the header has {len(header)}")
    return header, [(where, dict(zip(header, row, strict=True))) for where, row in rows]


def _node(record: Mapping[str, Any], where: str) -> Node:
    """Return a node from a row of text or a JSON object."""
    id, parent = record.get("id", ""), record.get("parent", "")
    aliases, exclusive = record.get("aliases") or [], record.get("exclusive", False)
    if isinstance(aliases, str):
        aliases = aliases.split(ALIAS_SEPARATOR)
    if not isinstance(id, str) or not isinstance(parent, str) or not isinstance(exclusive, bool):
        raise ConfigError(f"{where}: id and parent are texts, exclusive is true or false")
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise ConfigError(f"{where}: aliases are texts")
    words = tuple(alias.strip() for alias in aliases if alias.strip())
    return Node(id.strip(), parent.strip(), _images(record.get("images", 0), where), words, exclusive)


def _images(value: object, where: str) -> int:
    text = str(value).strip() or "0"
    if isinstance(value, bool) or not text.isascii() or not text.isdigit():
        raise ConfigError(f"{where}: {value!r} is no number of pictures")
    return int(text)


def _nodes_of_paths(
    path: Path, header: Sequence[str], rows: Sequence[tuple[str, dict[str, str]]], levels: Sequence[str], count: str
) -> list[Node]:
    lacking = [column for column in [*levels, *([count] if count else [])] if column not in header]
    if lacking:
        raise ConfigError(f"{path} has no column {lacking[0]!r} (it has {', '.join(header)})")
    images: dict[str, int] = {}  # of the node at the end of a row's path
    parents = {PATH_ROOT: ""}
    for where, row in rows:
        names = [row[column].strip() for column in levels]
        depth = sum(map(bool, names))
        if not depth or not all(names[:depth]):
            raise ConfigError(f"{where}: a path has no gaps, this one is {' / '.join(name or '?' for name in names)}")
        if names[0] == PATH_ROOT or any(PATH_SEPARATOR in name for name in names):
            raise ConfigError(
                f"{where}: {PATH_ROOT!r} is the root, and {PATH_SEPARATOR!r} separates the names of a path"
            )
        ids = [PATH_SEPARATOR.join(names[:end]) for end in range(1, depth + 1)]
        parents.update(zip(ids, [PATH_ROOT, *ids], strict=False))
        if count and ids[-1] in images:
            raise ConfigError(f"{where}: {ids[-1]!r} has a count on an earlier line")
        images[ids[-1]] = images.get(ids[-1], 0) + (_images(row[count], where) if count else 1)
    return [Node(id, parent, images.get(id, 0)) for id, parent in parents.items()]
