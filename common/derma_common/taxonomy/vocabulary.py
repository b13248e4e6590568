"""The words that tables, models and people use for the nodes of a tree."""

from __future__ import annotations

from derma_common.errors import ConfigError
from derma_common.taxonomy.tree import Tree


def plain(word: str) -> str:
    """Return a word as it is compared: without regard to case, underscores and repeated spaces."""
    return " ".join(word.casefold().replace("_", " ").split())


class Vocabulary:
    """A tree whose nodes are found by id or alias."""

    def __init__(self, tree: Tree) -> None:
        """Raises ConfigError when one word stands for two nodes."""
        self.tree = tree
        self._node: dict[str, str] = {}
        for node in tree.nodes.values():
            for word in (node.id, *node.aliases):
                other = self._node.setdefault(plain(word), node.id)
                if other != node.id:
                    raise ConfigError(f"{word!r} stands for two nodes of the tree, {other!r} and {node.id!r}")

    def node(self, word: str) -> str:
        """Return the id of the node that a word stands for. Raises ConfigError for a word that is unknown."""
        try:
            return self._node[plain(word)]
        except KeyError:
            known = ", ".join(self.tree.nodes)
            raise ConfigError(
                f"the taxonomy knows no class {word!r}, only {known} and their aliases: add it to a taxonomy file of "
                "your own (docs/taxonomy.md)"
            ) from None

    def named(self, word: str) -> str | None:
        """Return the id of the node that a word stands for, None when there is none."""
        return self._node.get(plain(word))
