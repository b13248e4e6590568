"""A tree of diseases: what is a kind of what, and how many pictures there are of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from derma_common.errors import ConfigError


@dataclass(frozen=True)
class Node:
    """One node; `images` counts the pictures attached to it directly, not those of its descendants.

    `aliases` are other words for it. `exclusive`: a view's class named after it, or after a descendant, may hold
    nothing outside its branch.
    """

    id: str
    parent: str = ""  # the root has none
    images: int = 0
    aliases: tuple[str, ...] = ()
    exclusive: bool = False


class Tree:
    """Nodes under one root, checked when made; every method raises KeyError for an id that it does not hold."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        """Raises ConfigError for a duplicated id, an orphan, no root or two, a cycle, or a negative count."""
        known: dict[str, Node] = {}
        for node in nodes:
            if not node.id:
                raise ConfigError("a node of the tree has no id")
            if node.id in known:
                raise ConfigError(f"the tree has two nodes with the id {node.id!r}")
            if node.images < 0:
                raise ConfigError(f"node {node.id!r} has {node.images} pictures: a count cannot be negative")
            known[node.id] = node
        self.nodes: Mapping[str, Node] = MappingProxyType(known)
        self._children: dict[str, list[str]] = {id: [] for id in known}
        for node in known.values():
            if node.parent and node.parent not in known:
                raise ConfigError(f"node {node.id!r} has the parent {node.parent!r}, which is not in the tree")
            if node.parent:
                self._children[node.parent].append(node.id)
        self.root = self._only_root()
        lost = known.keys() - set(self.descendants(self.root))
        if lost:
            raise ConfigError(f"the tree has a cycle: {self._cycle(min(lost))}")

    def _only_root(self) -> str:
        roots = [node.id for node in self.nodes.values() if not node.parent]
        if len(roots) > 1:
            raise ConfigError(
                f"the tree has {len(roots)} roots, {', '.join(map(repr, roots[:3]))}: give them one parent"
            )
        if not self.nodes:
            raise ConfigError("the tree has no nodes")
        if not roots:
            raise ConfigError(f"the tree has no root, but a cycle: {self._cycle(min(self.nodes))}")
        return roots[0]

    def _cycle(self, start: str) -> str:
        seen: list[str] = []
        while start not in seen:
            seen.append(start)
            start = self.nodes[start].parent
        return " < ".join([*seen[seen.index(start) :], start])

    def children(self, id: str) -> tuple[str, ...]:
        """Return the ids right below a node, in the order of the file."""
        return tuple(self._children[id])

    def descendants(self, id: str) -> tuple[str, ...]:
        """Return the node itself and all below it, a node before its children."""
        found, waiting = [], [id]
        while waiting:
            found.append(waiting.pop())
            waiting.extend(reversed(self._children[found[-1]]))
        return tuple(found)

    def leaves(self, id: str) -> tuple[str, ...]:
        """Return the descendants without children; of a leaf, itself."""
        return tuple(node for node in self.descendants(id) if not self._children[node])

    def lineage(self, id: str) -> tuple[str, ...]:
        """Return the node, its parent, and so on to the root."""
        line = [id]
        while self.nodes[line[-1]].parent:
            line.append(self.nodes[line[-1]].parent)
        return tuple(line)

    def images(self, id: str) -> int:
        """Return the number of pictures of a node and all its descendants."""
        return sum(self.nodes[node].images for node in self.descendants(id))

    def level(self, depth: int) -> tuple[str, ...]:
        """Return the nodes `depth` steps below the root, and the leaves above them: together they hold everything."""
        steps = ((node, len(self.lineage(node)) - 1) for node in self.descendants(self.root))
        return tuple(n for n, step in steps if step == depth or (step < depth and not self._children[n]))
