"""`partition`: cut a tree of diseases into training classes of bounded size (Esteva et al. 2017)."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from derma_common.taxonomy import partition, read_tree


def main(arguments: list[str]) -> None:
    """Print the training classes of a tree."""
    parser = argparse.ArgumentParser(prog="derma data partition", description=__doc__)
    parser.add_argument("taxonomy", type=Path, help="CSV or JSON file (docs/taxonomy.md)")
    parser.add_argument("--max", type=int, default=1000, help="a class has fewer pictures than this, if it can (1000)")
    parser.add_argument("--levels", default="", help="a CSV of paths: its columns from general to special, as a,b,c")
    parser.add_argument("--count", default="", help="a CSV of paths: the column with the pictures of a row")
    parser.add_argument("--strict", action="store_true", help="the algorithm as printed, which loses pictures")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(arguments)
    tree = read_tree(options.taxonomy, [name for name in options.levels.split(",") if name], options.count)
    classes = partition(tree, options.max, options.strict)
    members = [[node for node in c.members if tree.nodes[node].images] for c in classes]
    total, kept = tree.images(tree.root), sum(c.images for c in classes)
    if options.json:
        rows = [{"class": c.node, "images": c.images, "members": m} for c, m in zip(classes, members, strict=True)]
        print(json.dumps({"images": total, "lost": total - kept, "classes": rows}, ensure_ascii=False, indent=1))
        return
    for c, nodes in zip(classes, members, strict=True):
        inside = ", ".join(node.removeprefix(c.node + ":") for node in nodes if node != c.node)
        print(f"{c.images:8d}  {c.node}" + (f" = {inside}" if inside else ""))
    print(f"{len(classes)} classes, {kept} of {total} pictures, {total - kept} lost", file=sys.stderr)
