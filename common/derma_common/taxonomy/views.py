"""Views: one posterior, told in the classes of whoever asks.

A network is trained on one set of classes; a data set, a paper or a screen has another. A view says which nodes of
the tree each of its classes holds. A probability moves into a view by summing, never by splitting: what a view
cannot know it refuses to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from derma_common.errors import ConfigError
from derma_common.taxonomy.reading import read_document, tree_from
from derma_common.taxonomy.vocabulary import Vocabulary

Array = npt.NDArray[np.float64]
KNOWN = Path(__file__).with_name("known.json")  # the classes that derma knows, and its views of them


class View:
    """Classes over a tree, each holding some of its nodes with all that is below them; no two hold the same."""

    def __init__(self, name: str, vocabulary: Vocabulary, members: Mapping[str, Sequence[str]]) -> None:
        """`members`: class -> words of its nodes.

        Raises ConfigError for a view without classes, a class without nodes, an unknown word, two classes that hold
        the same node, or a class that has its name from the branch of an exclusive node (benign) and holds anything
        outside that branch.
        """
        if not members or not all(members.values()):
            raise ConfigError(f"view {name!r}: there are no classes, or one has no nodes")
        self.name = name
        self.classes = tuple(members)
        self.vocabulary = vocabulary
        self._holder: dict[str, str] = {}  # leaf of the tree -> class of the view
        tree = vocabulary.tree
        for of, words in members.items():
            own = vocabulary.named(of)
            guard = next((node for node in tree.lineage(own) if tree.nodes[node].exclusive), None) if own else None
            for leaf in (leaf for word in words for leaf in tree.leaves(vocabulary.node(word))):
                if guard and guard not in tree.lineage(leaf):
                    raise ConfigError(f"view {name!r}: {leaf} is not {guard} and must not be called {of!r}")
                if self._holder.setdefault(leaf, of) != of:
                    raise ConfigError(f"view {name!r}: {leaf} is in two classes, {self._holder[leaf]!r} and {of!r}")

    def place(self, word: str) -> str | None:
        """Return the class that holds a label or another model's class; None when this view has no place for it.

        Raises ConfigError for an unknown word, and for one that is coarser than this view: it could be in several
        of its classes.
        """
        leaves = self.vocabulary.tree.leaves(self.vocabulary.node(word))
        holders = {self._holder.get(leaf) for leaf in leaves}
        if len(holders) > 1:
            which = " or ".join(sorted(repr(h) if h else "none of its classes" for h in holders))
            raise ConfigError(f"{word!r} is coarser than the view {self.name!r}: it may be {which}")
        return holders.pop()

    def membership(self, classes: Sequence[str]) -> Array:
        """Return (C, K), 1 where a class is held by a class of this view; a row of zeros where it has no place.

        Raises ConfigError as `place`.
        """
        matrix = np.zeros((len(classes), len(self.classes)))
        for row, word in enumerate(classes):
            holder = self.place(word)
            if holder is not None:
                matrix[row, self.classes.index(holder)] = 1.0
        return matrix

    def of(self, posterior: npt.ArrayLike, classes: Sequence[str]) -> Array:
        """Return probabilities (N, K) of this view's classes from those (N, C) of `classes`.

        The probability of a class without a place (UNK in HAM10000's seven) stays outside: such rows sum to less
        than 1, and what is missing is the probability of "none of these". Raises ConfigError as `place`.
        """
        return np.asarray(posterior, dtype=np.float64) @ self.membership(classes)

    def indices(self, labels: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return the indices (N,) into `classes` of labels in anybody's words.

        Raises ConfigError as `place`, and for a label that has no place in this view.
        """
        index: dict[str, int] = {}
        found = []
        for label in labels:
            if label not in index:
                holder = self.place(label)
                if holder is None:
                    raise ConfigError(f"the view {self.name!r} has no class for the label {label!r}")
                index[label] = self.classes.index(holder)
            found.append(index[label])
        return np.asarray(found, dtype=np.int64)


def view(posterior: npt.ArrayLike, classes: Sequence[str], name: str) -> Array:
    """Return the posterior (N, C) of `classes` in the view `name` (or of a file), (N, K); see View.of, find_view."""
    return find_view(name).of(posterior, classes)


def common_view(classes: Sequence[str], labels: Iterable[str], vocabulary: Vocabulary | None = None) -> View:
    """Return the finest view in which both a model's classes and a table's labels have a place.

    Its classes are the topmost nodes among those that either names: a model with AK and SCC and a table with AKIEC
    meet at AKIEC. Each is called by the model's word for it, else by its id in the tree. `vocabulary`: derma's own
    when None. Raises ConfigError for an unknown word.
    """
    vocabulary = vocabulary or known_vocabulary()
    named = {vocabulary.node(word): word for word in classes}
    named |= {node: node for node in map(vocabulary.node, sorted(set(labels))) if node not in named}
    topmost = [node for node in named if not any(above in named for above in vocabulary.tree.lineage(node)[1:])]
    return View("common", vocabulary, {named[node]: [node] for node in topmost})


@cache
def known_vocabulary() -> Vocabulary:
    """Return the classes that derma knows: those of ISIC 2019 and HAM10000, their groups and other names."""
    return Vocabulary(tree_from(read_document(KNOWN), KNOWN))


@cache
def known_views() -> Mapping[str, View]:
    """Return derma's own views by name: live, isic2019, ham10000, pad-ufes-20, blog."""
    return MappingProxyType(read_views(KNOWN))


def read_views(path: Path) -> dict[str, View]:
    """Return the views of a taxonomy file: {"nodes": [...], "views": {NAME: {CLASS: [NODE, ...]}}}.

    Without `nodes` the views are over derma's own tree. Raises ConfigError.
    """
    document = read_document(path)
    vocabulary = Vocabulary(tree_from(document, path)) if "nodes" in document else known_vocabulary()
    views = document.get("views")
    if not isinstance(views, dict) or not views:
        raise ConfigError(f'{path} needs views: {{"views": {{NAME: {{CLASS: [NODE, ...]}}}}}}')
    for name, members in views.items():
        if not isinstance(members, dict) or not all(_is_texts(words) for words in members.values()):
            raise ConfigError(f"{path}: view {name!r} must give each class a list of nodes")
    return {name: View(name, vocabulary, members) for name, members in views.items()}


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def find_view(name: str) -> View:
    """Return derma's view of that name, or the only view of a file, or view V of a file, written FILE#V.

    Raises ConfigError when there is none.
    """
    if name in known_views():
        return known_views()[name]
    file, _, wanted = name.partition("#")
    if not Path(file).is_file():
        raise ConfigError(f"there is no view {name!r}: neither one of {', '.join(known_views())} nor a file")
    views = read_views(Path(file))
    if wanted in views:
        return views[wanted]
    if wanted or len(views) > 1:
        raise ConfigError(f"name one view of {file}, as {file}#NAME: it has {', '.join(views)}")
    return next(iter(views.values()))
